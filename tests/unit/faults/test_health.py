"""The site is judged by the code of `make health`, which runs on nodes that know nothing of Ansible."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.faults.health import Cast, Health, cast_of, program
from tests.faults.nodes import NodeError, Nodes
from tests.unit.faults.conftest import GROUPS, FakeDocker


def healthy() -> dict[str, dict[str, Any]]:
    """What the nodes of a site that is whole say."""
    base: dict[str, Any] = {"units": {}, "jobs": [], "certificate_days": 99}
    members = [{"name": "db1", "role": "leader"}, {"name": "db2", "role": "sync_standby"}]
    patroni = {"state": "running", "pending_restart": False, "paused": False, "members": members}
    app = {"health": 200, "health_reason": "", "active": True, "lease": True, "virtual_ip": True}
    spare = {**app, "active": False, "lease": False, "virtual_ip": False}
    return {
        "app1": {**base, "app": app},
        "app2": {**base, "app": spare},
        "db1": {**base, "patroni": {**patroni, "role": "primary"}, "etcd": {"healthy": True, "leader": False}},
        "db2": {**base, "patroni": {**patroni, "role": "replica"}, "etcd": {"healthy": True, "leader": False}},
        "mon1": {**base, "etcd": {"healthy": True, "leader": True}},
    }


GROUPS_OF = {name: tuple(groups) for name, groups in GROUPS.items()}


def test_the_cast_is_what_the_nodes_say():
    assert cast_of(healthy(), GROUPS_OF) == Cast("app1", "app2", "db1", "db2", "mon1", "db1", "mon1")


def test_nobody_plays_the_role_of_a_node_that_does_not_answer():
    found = healthy()
    found["db1"], found["app1"] = {"msg": "paused"}, {"msg": "exited"}
    found["mon1"]["etcd"] = {"healthy": False, "error": "no leader"}
    assert cast_of(found, GROUPS_OF) == Cast("", "app2", "", "db2", "", "db2", "mon1")


class Looked(Health):
    """What the nodes say is given."""

    def __init__(self, nodes: Nodes, found: dict[str, dict[str, Any]]) -> None:
        super().__init__(nodes, "192.0.2.10")
        self.found = found

    def look(self) -> dict[str, dict[str, Any]]:
        return self.found


def test_a_whole_site_has_no_problems(nodes: Nodes):
    assert Looked(nodes, healthy()).problems() == []


def test_a_job_that_failed_while_something_was_broken_is_tried_again_by_its_timer(nodes: Nodes):
    found = healthy()
    found["db1"]["jobs"] = ["zulip-ha-canary.service"]
    assert Looked(nodes, found).problems() == []


@pytest.mark.parametrize(
    ("node", "change", "expected"),
    [
        ("app1", {"msg": "exited"}, "app1: exited"),
        ("app1", {"units": {"zulip-worker@x.service": "failed"}}, "app1: zulip-worker@x.service failed"),
        ("app2", {"app": {**healthy()["app1"]["app"]}}, "2 active app hosts"),
        ("db2", {"patroni": {**healthy()["db1"]["patroni"]}}, "2 PostgreSQL leaders"),
        ("mon1", {"etcd": {"healthy": False, "error": "alarm"}}, "mon1: etcd: alarm"),
    ],
)
def test_a_site_that_is_not_whole(nodes: Nodes, node: str, change: dict[str, Any], expected: str):
    found = healthy()
    found[node] = change if "msg" in change else {**found[node], **change}
    assert any(expected in problem for problem in Looked(nodes, found).problems())


def test_the_program_runs_where_there_is_no_ansible(tmp_path):
    """It finds nothing on this machine, and says so in the words of host_health."""
    wanted = {"units": ["no-such.service"], "address": "127.0.0.1", "groups": ["app", "database", "quorum"]}
    wanted |= {"hostname": "127.0.0.1", "virtual_ip": "192.0.2.10"}
    # The interpreter of the system, which has no packages of ours.
    words = [sys.base_prefix + "/bin/python3", "-I", "-", json.dumps(wanted)]
    done = subprocess.run(words, input=program(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["units"]["no-such.service"]
    assert found["etcd"]["healthy"] is False
    assert "error" in found["patroni"]
    assert (found["app"]["health"], found["app"]["lease"]) == (0, False)


def test_nobody_waits_for_a_node_that_cannot_answer(nodes: Nodes, docker: FakeDocker):
    docker.status.update(app1="paused", db2="exited")
    found = Health(nodes, "192.0.2.10").look()
    assert (found["app1"]["msg"], found["db2"]["msg"]) == ("paused", "exited")
    # The others run, and say nothing that could be read.
    assert "msg" in found["mon1"]
    assert {call[2] for call in docker.said("exec", "python3")} == {"lab-app2", "lab-db1", "lab-mon1"}


def test_what_ran_before_has_to_run_after(nodes: Nodes, docker: FakeDocker, monkeypatch: pytest.MonkeyPatch):
    health = Health(nodes, "192.0.2.10")
    monkeypatch.setattr(nodes, "sh", lambda node, script: f"{node}.service\nother.timer")
    health.remember()
    assert health.units["db1"] == ["db1.service", "other.timer"]
    asked: list[Any] = []
    monkeypatch.setattr(nodes, "python", lambda node, text, wanted, timeout: asked.append(json.loads(wanted)) or "{}")
    health.look()
    assert {"units": ["db1.service", "other.timer"], "groups": ["database", "quorum"]}.items() <= next(
        one for one in asked if one["address"] == "192.0.2.13"
    ).items()


def test_an_error_of_a_node_is_a_problem_of_it(nodes: Nodes, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: Any, **__: Any) -> str:
        raise NodeError("docker exec: not within 25 s")

    monkeypatch.setattr(nodes, "python", fail)
    assert any("db1: docker exec: not within 25 s" in one for one in Health(nodes, "x").problems())
