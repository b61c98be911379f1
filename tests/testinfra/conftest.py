"""Guards against runs that tested nothing: a skip without a listed reason fails; counts are left for the runner.

The same suite runs on the lab, on staging and on production:
    pytest tests/testinfra --ansible-inventory inventories/staging --connection ansible
"""

from __future__ import annotations

import os

import pytest

LISTED_SKIPS = (
    "no second run was made",
    "this site has no second",
    "this site keeps uploads in S3",
    "this site's edge is external",
    "this site has no restore drill",
    "this site keeps its backups in S3",
)


def pytest_configure(config: pytest.Config) -> None:
    """Collect outcomes on the configuration object, which every hook can reach."""
    config.stash[OUTCOMES] = {"passed": 0, "failed": 0, "skipped": 0, "unlisted": []}


OUTCOMES = pytest.StashKey[dict]()


@pytest.fixture
def variables(host) -> dict:
    """The host's variables as the inventory has them written."""
    return host.ansible.get_variables()


@pytest.fixture
def address(host) -> str:
    """The host's address; a task's variables are evaluated, the inventory's are not."""
    return host.ansible("ansible.builtin.debug", "msg={{ site_address }}")["msg"]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    """Count outcomes; a skip must say one of the listed reasons."""
    outcome = yield
    report = outcome.get_result()
    seen = item.config.stash[OUTCOMES]
    if report.failed:
        seen["failed"] += 1
    elif report.skipped:
        seen["skipped"] += 1
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not any(listed in reason for listed in LISTED_SKIPS):
            seen["unlisted"].append(f"{item.nodeid}: {reason}")
    elif report.when == "call":
        seen["passed"] += 1


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Turn an empty run and an unlisted skip into failures, and append the counts to the file the runner reads."""
    seen = session.config.stash[OUTCOMES]
    for line in seen["unlisted"]:
        print(f"\nskipped without a listed reason: {line}")
    if not session.config.option.collectonly and (seen["unlisted"] or not seen["passed"]):
        session.exitstatus = exitstatus or pytest.ExitCode.TESTS_FAILED
    counts = os.environ.get("ZULIP_HA_TEST_COUNTS")
    if counts:
        with open(counts, "a", encoding="utf-8") as file:
            file.write(f"{seen['passed']} {seen['failed']} {seen['skipped']}\n")
