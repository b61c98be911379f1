"""Whether a host can run a release."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from filter_plugins.release import NO_RELEASE, release_entry, release_problems
from plugin_utils.application.versions import contract_for
from tests.unit.app.paths import ROOT

PROFILE = yaml.safe_load((ROOT / "playbooks/profiles/zulip.yml").read_text())["app_contract"]
FACTS = {"distribution_release": "bookworm", "architecture": "x86_64"}


def problems(version: str = "10.2", manifest: dict[str, Any] | None = None, **options: Any) -> list[str]:
    entry = {
        "manifest": {
            "id": "x",
            "version": version,
            "profile": "zulip",
            "codename": "bookworm",
            "architecture": "x86_64",
            **(manifest or {}),
        }
    }
    return release_problems(entry, contract_for(PROFILE, version), FACTS, **options)


def test_a_release_that_fits() -> None:
    assert problems() == []
    assert problems(current={"version": "10.2", "id": "y"}, postgresql=15) == []
    assert problems("9.0-dev+git") == []


@pytest.mark.parametrize(
    ("problem", "options"),
    [
        ("older than 9.0, the oldest", {"version": "8.4"}),
        ("older than 10.3, which runs", {"current": {"version": "10.3", "profile": "zulip"}}),
        ("built for the distribution trixie, and the host has bookworm", {"manifest": {"codename": "trixie"}}),
        ("built for the architecture aarch64", {"manifest": {"architecture": "aarch64"}}),
        ("supports PostgreSQL 13 to 17, and postgresql_version is 18", {"postgresql": 18}),
        ("this release has no queue 'emails'", {"queues": [{"name": "emails"}]}),
        ("this release has no incoming_mail", {"options": ["incoming_mail"]}),
    ],
)
def test_a_release_that_cannot_run_says_why_in_one_line(problem: str, options: dict[str, Any]) -> None:
    found = problems(**options)
    assert len(found) == 1
    assert problem in found[0]
    assert "\n" not in found[0]


def test_going_back_is_for_whoever_asks_for_it() -> None:
    assert problems(current={"version": "10.3"}, downgrade=True) == []
    # Another application's number says nothing.
    assert problems(current={"version": "10.3", "profile": "standin"}) == []


def test_without_a_release_the_newest_contract_counts() -> None:
    assert release_entry("") == NO_RELEASE
    assert release_entry(json.dumps({"artifact": "a"})) == {"artifact": "a"}
    assert release_problems(NO_RELEASE, contract_for(PROFILE, ""), FACTS, postgresql=17) == []
