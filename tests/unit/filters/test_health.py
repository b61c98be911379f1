"""The judgement over hosts: what makes a site unhealthy."""

from __future__ import annotations

import copy

import pytest

from filter_plugins.health import health_report


def app(active: bool) -> dict:
    return {
        "units": {},
        "certificate_days": 300,
        "app": {"health": 200, "health_reason": "", "active": active, "lease": active, "virtual_ip": active},
    }


def database(role: str, state: str) -> dict:
    members = [
        {"name": "d1", "role": "leader", "state": "running"},
        {"name": "d2", "role": "sync_standby", "state": state},
    ]
    return {
        "units": {},
        "certificate_days": 300,
        "etcd": {"healthy": True, "leader": role == "primary"},
        "patroni": {
            "state": state,
            "role": role,
            "timeline": 1,
            "pending_restart": False,
            "paused": False,
            "members": members,
        },
    }


HEALTHY = {
    "a1": {"health_host": app(True)},
    "a2": {"health_host": app(False)},
    "d1": {"health_host": database("primary", "running")},
    "d2": {"health_host": database("replica", "streaming")},
}


def test_a_healthy_site():
    report = health_report(HEALTHY, HEALTHY)
    assert report["healthy"], report["problems"]
    assert report["table"][-1].endswith("every check passed")


@pytest.mark.parametrize(
    ("break_it", "problem"),
    [
        (
            lambda site: site["a1"]["health_host"]["units"].update({"nginx.service": "failed"}),
            "a1: nginx.service failed",
        ),
        (lambda site: site["a1"]["health_host"].update(certificate_days=3), "a1: certificate ends in 3 days"),
        (
            lambda site: site["a1"]["health_host"]["app"].update(health=500, health_reason="redis"),
            "a1: /health answers 500: redis",
        ),
        (lambda site: site["a2"]["health_host"]["app"].update(lease=True), "2 active app hosts (a1, a2)"),
        (lambda site: site["a1"]["health_host"]["app"].update(lease=False), "0 active app hosts"),
        (lambda site: site["a2"]["health_host"]["app"].update(virtual_ip=True), "virtual IP on a1, a2, active is a1"),
        (lambda site: site["d2"]["health_host"]["patroni"].update(role="primary"), "2 PostgreSQL leaders (d1, d2)"),
        (lambda site: site["d1"]["health_host"]["patroni"]["members"].pop(), "no synchronous standby"),
        (lambda site: site["d2"]["health_host"]["patroni"].update(paused=True), "d2: patroni paused"),
        (lambda site: site["d1"]["health_host"]["etcd"].update(leader=False), "etcd has no single leader"),
        (lambda site: site["d2"].update(health_host={"unreachable": True, "msg": "no route\nmore"}), "d2: no route"),
        (lambda site: site["d2"].pop("health_host"), "d2: unreachable"),
    ],
)
def test_what_makes_it_unhealthy(break_it, problem):
    site = copy.deepcopy(HEALTHY)
    break_it(site)
    report = health_report(site, site)
    assert not report["healthy"]
    assert problem in report["problems"]
    assert problem in report["blocking"]
    assert any("BAD" in line for line in report["table"])


def test_a_site_of_one_host_needs_no_standby_and_no_virtual_ip():
    host = {"health_host": {**database("primary", "running"), "app": app(True)["app"]}}
    host["health_host"]["app"]["virtual_ip"] = False
    assert health_report({"solo": host}, ["solo"], virtual_ip=False)["healthy"]


def test_a_job_that_failed_is_told_and_blocks_nothing():
    site = copy.deepcopy(HEALTHY)
    site["a1"]["health_host"]["jobs"] = ["zulip-cron-clear-sessions.service"]
    report = health_report(site, site)
    assert not report["healthy"]
    assert report["problems"][0].startswith("a1: zulip-cron-clear-sessions.service failed")
    assert report["blocking"] == []
