"""What differs between releases."""

from __future__ import annotations

import pytest
import yaml
from ansible.errors import AnsibleFilterError

from plugin_utils.application.commands import contract_command
from plugin_utils.application.versions import contract_for, release_number
from tests.unit.app.paths import ROOT

PROFILES = {
    path.stem: yaml.safe_load(path.read_text())["app_contract"] for path in (ROOT / "playbooks/profiles").glob("*.yml")
}
RELEASES = ["9.0-dev+git", "9.0", "9.1", "9.2", "9.4", "10.0", "11.5", "12.0-beta1+git", "12.4", ""]


def names(entries: list[dict]) -> set[str]:
    return {entry["name"] for entry in entries}


@pytest.mark.parametrize(
    ("text", "number"),
    [("9", (9,)), ("9.0", (9,)), ("9.0-dev+git", (9,)), ("10.4.0", (10, 4)), ("12.0-beta1", (12,))],
)
def test_a_version_is_its_numbers(text: str, number: tuple[int, ...]) -> None:
    assert release_number(text) == number


def test_no_version_is_the_newest() -> None:
    assert release_number("") > release_number("99.9")


def test_what_is_no_version_is_refused() -> None:
    with pytest.raises(AnsibleFilterError, match="is no version"):
        release_number("main")


def test_entries_stay_for_their_releases_alone() -> None:
    contract = {
        "queues": [{"name": "a"}, {"name": "b", "since": "10.0"}, {"name": "c", "before": "9.2"}],
        "size": {"by_version": [{"value": 1}, {"since": "10", "value": [{"x": 1, "since": "11"}, {"x": 2}]}]},
    }
    assert contract_for(contract, "9.1") == {"queues": [{"name": "a"}, {"name": "c"}], "size": 1}
    assert contract_for(contract, "10.1") == {"queues": [{"name": "a"}, {"name": "b"}], "size": [{"x": 2}]}


def test_a_release_that_nothing_is_said_of_is_refused() -> None:
    with pytest.raises(AnsibleFilterError, match="says nothing of this release"):
        contract_for({"size": {"by_version": [{"since": "10", "value": 1}]}}, "9")


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("release", RELEASES)
def test_a_resolved_contract_stays_as_it_is(profile: str, release: str) -> None:
    resolved = contract_for(PROFILES[profile], release)
    text = yaml.safe_dump(resolved)
    assert not any(word in text for word in ("by_version", "since:", "before:"))
    assert contract_for(resolved, "") == resolved


def test_queues_are_those_that_the_release_was_found_to_have() -> None:
    contract = {"queues": [{"name": "a", "memory": {"high": "1G", "max": "1G"}}, {"name": "b"}]}
    found = contract_for(contract, "9", {"queues": ["c", "a"]})["queues"]
    assert found == [{"name": "a", "memory": {"high": "1G", "max": "1G"}}, {"name": "c"}]
    # A release whose survey found nothing has what the contract says.
    assert contract_for(contract, "9", {"queues": []})["queues"] == contract["queues"]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("release", RELEASES)
def test_every_application_can_be_read_and_exported(profile: str, release: str) -> None:
    values = {"python": "/v/python", "deployment": "/d", "realm": "", "directory": "/srv/export"}
    known = contract_for(PROFILES[profile], release)["commands"]
    read = contract_command(known["read_message"], values)
    assert read[:2] == ["/v/python", "/d/manage.py"]
    compile(read[-1], "read_message", "exec")
    # All on one line, or a shell of Django's would ask for more.
    assert "\n" not in read[-1]
    assert contract_command(known["export_organization"], values)[2:] == [
        "export",
        "--realm=",
        "--output=/srv/export/export",
    ]


@pytest.mark.parametrize(
    ("release", "number", "there", "missing"),
    [
        ("9.1", 13, {"thumbnail", "user_presence"}, {"deferred_email_senders"}),
        ("9.2", 12, {"thumbnail"}, {"user_presence", "deferred_email_senders"}),
        ("10.0", 13, {"thumbnail", "deferred_email_senders"}, {"user_presence"}),
        ("11.5", 13, {"deferred_email_senders"}, {"user_presence"}),
        ("12.4", 13, {"deferred_email_senders"}, {"user_presence"}),
    ],
)
def test_queues_of_zulip(release: str, number: int, there: set[str], missing: set[str]) -> None:
    queues = names(contract_for(PROFILES["zulip"], release)["queues"])
    assert len(queues) == number
    assert there <= queues
    assert not missing & queues


@pytest.mark.parametrize(
    ("release", "postgresql", "services"),
    [
        ("9.4", (12, 16), {"katex", "camo", "smokescreen"}),
        ("10.0", (13, 17), {"katex", "tus", "camo", "smokescreen"}),
        ("11.5", (14, 17), {"katex", "tus", "email-server", "camo", "smokescreen"}),
        ("12.4", (14, 18), {"katex", "tus", "email-server", "camo", "smokescreen"}),
    ],
)
def test_services_and_databases_of_zulip(release: str, postgresql: tuple[int, int], services: set[str]) -> None:
    contract = contract_for(PROFILES["zulip"], release)
    assert (contract["database"]["postgresql"]["minimum"], contract["database"]["postgresql"]["maximum"]) == postgresql
    assert names(contract["services"]) == services
