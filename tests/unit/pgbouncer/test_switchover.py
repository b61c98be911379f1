"""Who is to lead after a planned move, what speaks against one, and who holds requests."""

from __future__ import annotations

import json
from typing import Any

import pytest

from filter_plugins import switchover

LEADER = {"name": "db1", "role": "leader", "state": "running", "timeline": 4}
STANDBY = {"name": "db2", "role": "sync_standby", "state": "streaming", "timeline": 4, "lag": 0}
ASYNC = {"name": "db3", "role": "replica", "state": "running", "timeline": 4, "lag": 0}


def cluster(*members: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"members": list(members), "lacking": [], **more}


def test_the_synchronous_standby_is_next() -> None:
    plan = switchover.switchover_plan(cluster(LEADER, ASYNC, STANDBY))
    assert plan == {"leader": "db1", "candidate": "db2", "timeline": 4, "problem": ""}


def test_a_leader_that_is_wanted_has_nothing_to_do() -> None:
    plan = switchover.switchover_plan(cluster(LEADER, STANDBY, lacking=["db2 lags by 9 bytes"]), "db1")
    assert (plan["candidate"], plan["problem"]) == ("", "")


def test_the_least_lag_is_next_without_synchronous_replication() -> None:
    behind = {**STANDBY, "role": "replica", "lag": 5}
    assert switchover.switchover_plan(cluster(LEADER, behind, ASYNC), synchronous=False)["candidate"] == "db3"
    unknown = {**ASYNC, "lag": "unknown"}
    assert switchover.switchover_plan(cluster(LEADER, unknown, behind), synchronous=False)["candidate"] == "db2"


@pytest.mark.parametrize(
    ("given", "target", "problem"),
    [
        (cluster(), "", "no leader"),
        (cluster({**LEADER, "state": "starting"}, STANDBY), "", "no leader"),
        (cluster(LEADER, STANDBY), "db9", "db9 is no member of the cluster; those are db1, db2"),
        (cluster(LEADER), "", "only member"),
        (cluster(LEADER, STANDBY, pause=True), "", "paused"),
        (cluster(LEADER, STANDBY, scheduled_switchover={"at": "soon"}), "", "scheduled"),
        (cluster(LEADER, STANDBY, lacking=["db2 lags by 9 bytes"]), "", "not whole: db2 lags by 9 bytes"),
        (cluster(LEADER, STANDBY, ASYNC), "db3", "db3 is no synchronous standby; those are: db2"),
        (cluster(LEADER, ASYNC), "", "there is no synchronous standby"),
        (cluster(LEADER, {**STANDBY, "tags": {"nofailover": True}}), "", "there is no synchronous standby"),
    ],
)
def test_what_cannot_be_is_told(given: dict[str, Any], target: str, problem: str) -> None:
    plan = switchover.switchover_plan(given, target)
    assert problem in plan["problem"]
    assert plan["candidate"] == ""
    assert "\n" not in plan["problem"]


def test_an_heir_does_not_wait_for_a_restart_itself() -> None:
    assert switchover.restart_heir([LEADER, STANDBY]) == "db2"
    assert switchover.restart_heir([LEADER, {**STANDBY, "pending_restart": True}]) == ""
    assert switchover.restart_heir([LEADER]) == ""
    assert switchover.restart_heir([LEADER, ASYNC]) == ""
    assert switchover.restart_heir([LEADER, ASYNC], synchronous=False) == "db3"


def test_long_transactions_and_crons_are_named() -> None:
    transaction = {"pid": 7, "user": "zulip", "database": "zulip", "client": "10.0.0.1", "state": "active"}
    transactions = [{**transaction, "application": "psql", "seconds": 99}]
    runs = [{"application": "singleton cron-archive", "client": "10.0.0.1"}]
    shown = switchover.switchover_blockers(json.dumps({"transactions": transactions, "runs": runs}))
    assert shown == [
        "a transaction of zulip on zulip (process 7, 10.0.0.1, psql) is active for 99 s",
        "singleton cron-archive runs on 10.0.0.1",
    ]
    assert switchover.switchover_blockers('{"transactions": [], "runs": []}') == []


def test_app_hosts_are_told_apart() -> None:
    results = [
        {"item": "app1", "stdout": "spare"},
        {"item": "app2", "stdout": "active"},
        {"item": "app3", "unreachable": True},
        {"item": "app4", "stdout": "", "rc": 69},
    ]
    assert switchover.hold_hosts(results) == {"active": ["app2"], "spare": ["app1"], "without": ["app3", "app4"]}


def test_a_spare_does_the_move_when_nobody_is_active() -> None:
    results = [{"item": "app1", "stdout": "spare"}, {"item": "app2", "stdout": "spare"}]
    assert switchover.hold_hosts(results) == {"active": ["app1"], "spare": ["app2"], "without": []}
    assert switchover.hold_hosts([]) == {"active": [], "spare": [], "without": []}


def test_why_a_host_could_not_hold() -> None:
    results = [
        {"item": "app1", "rc": 3, "stderr": "noise\ndatabase_hold: a transaction did not end within 2 s"},
        {"item": "app2", "rc": 0, "stderr": ""},
        {"item": "app3", "unreachable": True},
        {"item": "app4", "skipped": True},
    ]
    assert switchover.hold_problem(results) == "app1: a transaction did not end within 2 s"
    assert switchover.hold_problem([{"rc": 5, "stderr": "database_hold: no"}]) == "no"


def test_hosts_that_do_not_see_the_new_leader() -> None:
    results = [
        {"item": "app1", "stdout": '{"figures": {"outcome": "moved"}}'},
        {"item": "app2", "stdout": '{"figures": {"outcome": "released"}}'},
        {"item": "app3", "unreachable": True},
    ]
    assert switchover.hold_unmoved(results) == ["app2"]


@pytest.mark.parametrize(
    ("databases", "connection", "password"),
    [
        ({"zulip": "host=127.0.0.1 port=5000"}, "dbname=zulip user=zulip host=127.0.0.1 port=5000", "secret"),
        ({"*": "host=x", "a": "dbname=b pool_size=5"}, "dbname=b user=zulip", "secret"),
        ({"a": "host=h user=own password=mine"}, "dbname=a user=own host=h", "mine"),
    ],
)
def test_the_way_is_pgbouncers_own(databases: dict[str, str], connection: str, password: str) -> None:
    settings = {"server_tls_sslmode": "verify-full", "server_tls_ca_file": "/ca.pem"}
    way = switchover.pgbouncer_way(databases, {"zulip": "secret"}, settings)
    assert way == {"connection": f"{connection} sslmode=verify-full sslrootcert=/ca.pem", "password": password}
