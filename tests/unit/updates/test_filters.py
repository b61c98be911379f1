"""Filters of the verb os_updates: order, refusals, table; and the offset of a timer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from filter_plugins import updates

GROUPS = {
    "all": ["app1", "app2", "db1", "db2", "mon1"],
    "app": ["app1", "app2"],
    "database": ["db1", "db2"],
    "quorum": ["db1", "db2", "mon1"],
}
PLAN: dict[str, Any] = {
    "interrupted": False,
    "busy": "",
    "broken": "",
    "upgradable": [{"name": "libc6", "from": "1", "to": "2", "security": True}],
    "new": [],
    "removed": [],
    "kept": [],
    "held": [],
    "restart": [],
    "left": [],
    "reboot": "",
    "container": False,
    "lists_age": 60,
}
NOTHING = PLAN | {"upgradable": []}
OPTIONS = {"mode": "safe", "reboot": "auto", "downtime": False, "hosts": [], "fetched": True, "limit": ""}


def site(plans: dict[str, Any] | None = None, active: str = "app1", leader: str = "db1") -> dict[str, dict[str, Any]]:
    """Host variables as the play has them."""
    hostvars: dict[str, dict[str, Any]] = {}
    for host in GROUPS["all"]:
        health: dict[str, Any] = {"units": {}}
        if host in GROUPS["app"]:
            health["app"] = {"lease": host == active}
        if host in GROUPS["database"]:
            health["patroni"] = {"role": "primary" if host == leader else "replica"}
        plan = PLAN | (plans or {}).get(host, {})
        hostvars[host] = {"health_host": health, "updates_read": {"stdout": json.dumps(plan)}}
    return hostvars


def hosts(result: dict[str, Any]) -> list[str]:
    return [entry["host"] for entry in result["order"]]


def test_what_carries_something_comes_last():
    result = updates.update_plan(site(), GROUPS, OPTIONS, [])
    assert hosts(result) == ["mon1", "app2", "db2", "db1", "app1"]
    assert result["problems"] == []
    result = updates.update_plan(site(active="app2", leader="db2"), GROUPS, OPTIONS, [])
    assert hosts(result) == ["mon1", "app1", "db1", "db2", "app2"]


def test_a_host_with_several_parts_has_the_last_place_of_its_parts():
    groups = GROUPS | {"quorum": ["app1", "db1", "db2"], "database": ["db2", "app2"]}
    hostvars = site(active="app1", leader="db2")
    hostvars["app2"]["health_host"]["patroni"] = {"role": "replica"}
    # app2: spare and replica
    assert hosts(updates.update_plan(hostvars, groups, OPTIONS, [])) == ["db1", "mon1", "app2", "db2", "app1"]


def test_only_what_is_due():
    plans = dict.fromkeys(GROUPS["all"], NOTHING)
    assert hosts(updates.update_plan(site(plans), GROUPS, OPTIONS, [])) == []
    plans["db2"] = NOTHING | {"restart": ["patroni.service"]}
    plans["mon1"] = NOTHING | {"reboot": "kernel 2 is installed, 1 runs"}
    plans["app2"] = NOTHING | {"interrupted": True}
    assert hosts(updates.update_plan(site(plans), GROUPS, OPTIONS, [])) == ["mon1", "app2", "db2"]
    assert hosts(updates.update_plan(site(plans), GROUPS, OPTIONS | {"reboot": "never"}, [])) == ["app2", "db2"]
    assert len(hosts(updates.update_plan(site(plans), GROUPS, OPTIONS | {"reboot": "always"}, []))) == 5


def test_a_container_is_never_rebooted():
    plan = NOTHING | {"container": True, "reboot": "asked for by a package"}
    assert not updates.update_reboots(plan, "always")
    assert not updates.update_reboots(plan, "auto")
    plan["container"] = False
    assert updates.update_reboots(plan, "auto")
    assert not updates.update_reboots(plan, "never")
    assert not updates.update_reboots(NOTHING, "auto")
    assert updates.update_reboots(NOTHING, "always")


@pytest.mark.parametrize("wanted", [["mon1", "app1"], "mon1,app1", "mon1 app1"])
def test_some_hosts_alone(wanted):
    result = updates.update_plan(site(), GROUPS, OPTIONS | {"hosts": wanted}, [])
    assert hosts(result) == ["mon1", "app1"]
    assert result["table"][-1] == "nothing to do: app2, db1, db2"


@pytest.mark.parametrize(
    ("plan", "part"),
    [
        ({"busy": "unattended-upgr (process 7)"}, "db2: apt is in use by unattended-upgr (process 7); wait"),
        ({"broken": "E: Unmet dependencies"}, "db2: apt cannot work: E: Unmet dependencies"),
        ({"lists_age": 200000}, "db2: its package lists could not be fetched"),
        ({"lists_age": None}, "db2: its package lists could not be fetched"),
    ],
)
def test_hosts_whose_apt_cannot_work_are_refused(plan, part):
    result = updates.update_plan(site({"db2": plan}), GROUPS, OPTIONS, [])
    assert len(result["problems"]) == 1
    assert result["problems"][0].startswith(part)


def test_what_a_killed_run_left_is_no_reason_to_refuse():
    plan = {"db2": {"interrupted": True, "broken": "E: dpkg was interrupted", "upgradable": []}}
    result = updates.update_plan(site(plan), GROUPS, OPTIONS, [])
    assert result["problems"] == []
    assert "db2" in hosts(result)


def test_old_lists_do_in_check_mode():
    options = OPTIONS | {"fetched": False}
    assert updates.update_plan(site({"db2": {"lists_age": None}}), GROUPS, options, [])["problems"] == []


def test_the_sites_own_problems_are_kept():
    result = updates.update_plan(site(), GROUPS, OPTIONS, ["no synchronous standby"])
    assert result["problems"] == ["no synchronous standby"]


@pytest.mark.parametrize(
    ("answer", "part"),
    [
        ({"unreachable": True}, "db2: no answer"),
        ({"rc": 2, "msg": "[Errno 2] No such file or directory: b'/usr/local/lib'"}, "run site.yml first"),
        ({"rc": 1, "stdout": "", "stderr": "host_packages: plan: boom\n"}, "(host_packages: plan: boom)"),
        ({}, "(it printed nothing)"),
    ],
)
def test_a_host_without_a_plan_is_refused(answer, part):
    hostvars = site()
    hostvars["db2"]["updates_read"] = answer
    problems = updates.update_plan(hostvars, GROUPS, OPTIONS, [])["problems"]
    assert len(problems) == 1
    assert part in problems[0]
    assert "\n" not in problems[0]


def test_a_part_with_one_host_needs_leave():
    groups = {"all": ["app1"], "app": ["app1"], "database": ["app1"], "quorum": ["app1"]}
    hostvars = {"app1": site()["app1"]}
    hostvars["app1"]["health_host"]["patroni"] = {"role": "primary"}
    result = updates.update_plan(hostvars, groups, OPTIONS, [])
    assert "the application has one host (app1)" in result["problems"][0]
    assert "os_updates_downtime=true" in result["problems"][0]
    assert updates.update_plan(hostvars, groups, OPTIONS | {"downtime": True}, [])["problems"] == []
    # Nothing is due there: nothing stands still.
    hostvars["app1"]["updates_read"] = {"stdout": json.dumps(NOTHING)}
    assert updates.update_plan(hostvars, groups, OPTIONS, [])["problems"] == []


def test_the_table_says_what_would_happen():
    many = [{"name": f"p{n:02}", "from": "1", "to": "2", "security": False} for n in range(14)]
    plans = {
        "mon1": {"upgradable": many, "reboot": "kernel 2 is installed, 1 runs"},
        "app2": {
            "upgradable": [],
            "restart": ["ssh.service"],
            "interrupted": True,
            "kept": ["cron"],
            "removed": [{"name": "gone"}],
            "new": [{"name": "fresh"}],
        },
        "db1": NOTHING,
        "db2": NOTHING,
        "app1": NOTHING,
    }
    table = updates.update_plan(site(plans), GROUPS, OPTIONS, [])["table"]
    text = "\n".join(table)
    assert table[1].split() == ["1", "mon1", "quorum", "or", "monitor", "14", "0", "reboot"]
    assert table[2].split()[:6] == ["2", "app2", "spare", "app", "0", "0"]
    assert "finish an interrupted installation, restart what changed" in table[2]
    for part in (
        "p11 1 -> 2, and 2 more",
        "mon1: a reboot is due: kernel 2",
        "app2: REMOVED: gone",
        "app2: installed besides: fresh",
        "left alone: cron",
        "replaced already: ssh.service",
        "nothing to do: app1, db1, db2",
    ):
        assert part in text, part


def test_restarts_of_clusters_have_tasks_of_their_own():
    found = updates.update_restarts({"restart": ["etcd.service", "patroni.service", "ssh.service", "nginx.service"]})
    assert found == {"etcd": True, "patroni": True, "effects": ["restart:ssh.service", "restart:nginx.service"]}
    assert updates.update_restarts({"restart": []}) == {"etcd": False, "patroni": False, "effects": []}


def test_good_options_are_no_problem():
    assert updates.update_options_problem(OPTIONS, GROUPS["all"]) == ""
    assert updates.update_options_problem(OPTIONS | {"hosts": "db1"}, GROUPS["all"]) == ""


@pytest.mark.parametrize(
    ("more", "part"),
    [
        ({"mode": "full"}, "os_updates_mode cannot be full; choose safe or dist"),
        ({"reboot": "yes"}, "os_updates_reboot cannot be yes"),
        ({"hosts": ["db9"]}, "no such host in the inventory: db9"),
        ({"limit": "db1"}, "os_updates_hosts=db1"),
    ],
)
def test_bad_options_are_refused_in_one_line(more, part):
    problem = updates.update_options_problem(OPTIONS | more, GROUPS["all"])
    assert part in problem
    assert "\n" not in problem


@pytest.mark.parametrize(
    ("calendar", "minutes", "expected"),
    [
        ("Sun *-*-* 03:00:00", 0, "Sun *-*-* 03:00:00"),
        ("Sun *-*-* 03:00:00", 30, "Sun *-*-* 03:30:00"),
        ("Sun *-*-* 03:45", 90, "Sun *-*-* 05:15"),
        ("Sun 3:00", 30, "Sun 03:30"),
        ("Sun *-*-* 03:00:00 Europe/Berlin", 60, "Sun *-*-* 04:00:00 Europe/Berlin"),
    ],
)
def test_a_time_is_moved(calendar, minutes, expected):
    assert updates.calendar_later(calendar, minutes) == expected


@pytest.mark.parametrize(("calendar", "minutes"), [("weekly", 0), ("Sun *-*-* 23:40:00", 30), ("*-*-* *:00:00", 30)])
def test_a_time_that_cannot_be_moved_is_refused(calendar, minutes):
    with pytest.raises(AnsibleFilterError):
        updates.calendar_later(calendar, minutes)
