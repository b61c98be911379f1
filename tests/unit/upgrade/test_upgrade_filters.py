"""What upgrade and rollback say of what they are going to do."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

PATH = Path(__file__).resolve().parents[3] / "filter_plugins/upgrade.py"
spec = importlib.util.spec_from_file_location("upgrade_filters", PATH)
assert spec
assert spec.loader
upgrade = importlib.util.module_from_spec(spec)
spec.loader.exec_module(upgrade)

PLAN: dict[str, Any] = {
    "from": "12.0", "to": "12.1", "strategy": "rolling", "due": True, "known": True,
    "pending": [{"app": "zerver", "name": "0600_x", "verdict": "expand"}],
    "judgement": {"text": "older code can live with zerver.0600_x"},
    "files": {"app1": [], "app2": ["/etc/zulip/settings.py"]},
    "active": ["app1"], "spares": ["app2"],
}  # fmt: skip


def plan(**changes: Any) -> str:
    return "\n".join(upgrade.upgrade_plan({**PLAN, **changes}))


def test_a_plan_says_who_comes_when_and_what_users_see() -> None:
    text = plan()
    assert "12.0 -> 12.1" in text
    assert "zerver.0600_x: expand" in text
    assert "app2, app1 after a move" in text
    assert "none fails" in text
    assert "app1: none change" in text
    assert "app2: /etc/zulip/settings.py" in text


def test_a_plan_is_honest_about_what_fails() -> None:
    assert "maintenance page" in plan(strategy="offline")
    assert "failed requests" in plan(spares=[])
    assert "runs already" in plan(due=False, pending=[])
    assert "nothing" in plan(due=False, pending=[])
    assert "not unpacked" in plan(known=False)


def test_changed_files_are_those_that_would_be_written() -> None:
    assert upgrade.changed_paths({"/b": "changed", "/a": "created", "/c": "unchanged", "/d": "kept"}) == ["/a", "/b"]
    assert upgrade.changed_paths(None) == []


def hosts(**names: tuple[str, bool]) -> dict[str, dict[str, Any]]:
    return {
        host: {"rollback_name": name, "rollback_release": {"id": "x"} if there else {}, "rollback_current": "now"}
        for host, (name, there) in names.items()
    }


@pytest.mark.parametrize(
    ("found", "wanted", "words"),
    [
        (hosts(app1=("one", True), app2=("one", True)), "", ""),
        (hosts(app1=("one", True), app2=("two", True)), "", "do not agree"),
        (hosts(app1=("", False), app2=("", False)), "", "no deployment before"),
        (hosts(app1=("one", True), app2=("one", False)), "one", "app2 has no deployment one"),
        (hosts(app1=("now", True), app2=("now", True)), "now", "is what runs"),
    ],
)
def test_a_way_back_that_is_none(found: dict[str, dict[str, Any]], wanted: str, words: str) -> None:
    problem = upgrade.rollback_problem(found, found, wanted)
    assert (words in problem) if words else problem == ""


def test_hosts_of_another_release_are_those_that_run_one() -> None:
    running = {"a1": {"release_running": {}}, "a2": {"release_running": {"id": "new"}}, "a3": {}}
    assert upgrade.other_release(running, running, {"id": "new"}) == []
    running["a3"] = {"release_running": {"id": "old"}}
    assert upgrade.other_release(running, running, {"id": "new"}) == ["a3"]
