"""What a campaign says in the end: load, samplers and recoveries together."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.faults import campaign as module
from tests.faults.campaign import Campaign, Operator
from tests.faults.health import Cast
from tests.faults.nodes import NodeError, Nodes
from tests.load.history import History, read
from tests.unit.faults.conftest import FakeDocker
from tests.unit.faults.test_figures import step
from tests.unit.faults.test_samples import commit, look
from tests.unit.load.test_checker import Run

STEP = step(began=5.0, injected=5.0, healed=6.0, whole=9.0, blind=["app2"])


class Judged:
    """A campaign whose load and samplers saw nothing bad; tests then spoil it."""

    def __init__(self, nodes: Nodes, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.run, self.steps = Run(), [dict(STEP)]
        self.samples: list[dict[str, Any]] = [
            look("app1", 0, 20, "active vip"), look("app2", 0, 5, ""), look("app2", 9, 20, ""),
            look("db1", 0, 20, "writable"), look("db2", 0, 20, "standby"), commit("db1", 1, 1),
        ]  # fmt: skip
        self.campaign = Campaign.__new__(Campaign)
        self.campaign.name, self.campaign.out, self.campaign.seed = "run", out, 7
        self.campaign.nodes = nodes
        self.campaign.load = SimpleNamespace(history=out / "run.jsonl")  # type: ignore[assignment]
        self.campaign.server = None  # type: ignore[assignment]
        monkeypatch.setattr(module, "read_back", lambda server, lines, patience: (self.run.final, []))

    def violations(self, ended: str = "") -> list[str]:
        path = self.campaign.load.history
        path.write_text("".join(json.dumps(line) + "\n" for line in self.run.lines))
        samples = [{"kind": "sample", "began": one["from"], **one} for one in self.samples]
        (path.parent / "run.samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in samples))
        self.campaign.result = self.campaign._judge(self.steps, 0.0, 20.0, True, ended)
        self.campaign._write()
        found: list[str] = self.campaign.result["violations"]
        return found


@pytest.fixture
def judged(nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Judged:
    return Judged(nodes, tmp_path, monkeypatch)


def test_a_campaign_without_a_flaw(judged: Judged, tmp_path: Path):
    assert judged.violations() == []
    written = json.loads((tmp_path / "run.faults.json").read_text())
    assert written["steps"][0]["figures"]["writes"] == pytest.approx(0.2)
    assert "| kill-postgres | 1 | 0.2 / 0.2 / 0.2 |" in (tmp_path / "run.md").read_text()
    assert (tmp_path / "run.svg").read_text().startswith("<svg")


def test_a_lost_message_is_a_violation_and_belongs_to_its_fault(judged: Judged):
    judged.run.final.pop(30)
    assert any("1 acknowledged messages are lost" in one for one in judged.violations())
    assert judged.campaign.result["steps"][0]["figures"]["lost"] == 1


def test_two_active_hosts_are_a_violation(judged: Judged):
    judged.samples[1]["state"] = "active"
    assert any("app1 and app2 were active at once" in one for one in judged.violations())


def test_a_node_that_was_down_need_not_have_been_looked_at_but_one_that_ran_must(judged: Judged):
    judged.steps[0]["blind"] = []
    judged.samples[2]["from"] = 14
    assert ["app2 was looked at for 11 s of 20 s" in one for one in judged.violations()] == [True]


def test_a_recovery_by_hand_is_a_violation(judged: Judged):
    judged.steps[0].update(hands=True, problems=["redis"])
    assert judged.violations() == ["kill-postgres: it took hands: redis"]


def test_a_run_in_which_nothing_happened_proves_nothing(judged: Judged):
    judged.steps[0]["absent"] = "nobody is leader now"
    assert judged.violations() == ["no fault happened"]


def test_a_run_that_ended_early_is_violated(judged: Judged):
    assert judged.violations("after kill-postgres: in ruins") == [
        "the run ended before its time: after kill-postgres: in ruins"
    ]


# --- the operator ----------------------------------------------------------------------------------------------------


@pytest.fixture
def operator(nodes: Nodes, tmp_path: Path) -> Operator:
    health = SimpleNamespace(cast=lambda: Cast(active="app1"))
    return Operator(nodes, health, History(tmp_path / "h", new=True), "ann@example.com")  # type: ignore[arg-type]


def changes(tmp_path: Path) -> list[tuple[int, str]]:
    return [(line["role"], line["outcome"]) for line in read(tmp_path / "h")]


def test_a_role_is_changed_on_each_host_that_becomes_active(operator: Operator, docker: FakeDocker, tmp_path: Path):
    operator.change()
    operator.change()
    operator.health.cast = lambda: Cast(active="app2")  # type: ignore[method-assign]
    operator.change()
    assert changes(tmp_path) == [(300, "ok"), (400, "ok")]
    assert [call[3] for call in docker.said("change_user_role")] == ["lab-app1", "lab-app2"]
    operator.put_back()
    assert len(changes(tmp_path)) == 2


def test_a_role_is_put_back(operator: Operator, tmp_path: Path):
    operator.change()
    operator.put_back()
    assert changes(tmp_path) == [(300, "ok"), (400, "ok")]


def test_a_release_without_the_command_is_left_alone(operator: Operator, docker: FakeDocker, tmp_path: Path):
    docker.refuse = lambda words: words[0] == "exec"
    operator.change()
    assert not operator.works
    operator.change(anyway=True)
    operator.put_back()
    assert changes(tmp_path) == [(300, "unknown")]


def test_a_change_that_failed_later_is_tried_again_on_the_next_host(operator: Operator, docker: FakeDocker):
    operator.change()
    docker.refuse = lambda words: words[0] == "exec"
    operator.health.cast = lambda: Cast(active="app2")  # type: ignore[method-assign]
    operator.change()
    assert operator.works


# --- verbs -----------------------------------------------------------------------------------------------------------


class Play:
    """A verb that is running."""

    pid = 2**22 + 1

    def __init__(self, outcome: Any) -> None:
        self.outcome = outcome

    def wait(self, seconds: float) -> int:
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return int(self.outcome)


def test_a_verb_that_fails_did_not_happen(judged: Judged, tmp_path: Path):
    (tmp_path / "log").write_text("FAILED: the site is locked")
    judged.campaign.site = SimpleNamespace(start=lambda verb: (Play(2), tmp_path / "log"))  # type: ignore[assignment]
    with pytest.raises(NodeError, match="switchover_app failed: FAILED: the site is locked"):
        judged.campaign.play("switchover_app")


def test_a_verb_does_not_outlive_us(judged: Judged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    killed: list[int] = []
    monkeypatch.setattr(module.os, "killpg", lambda pid, number: killed.append(pid))
    playing = Play(KeyboardInterrupt())
    judged.campaign.site = SimpleNamespace(start=lambda verb: (playing, tmp_path / "log"))  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        judged.campaign.play("switchover_app")
    assert killed == [Play.pid]
