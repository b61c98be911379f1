"""A seed gives the same run; each fault hits whom it names; what a site can survive is counted."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tests.faults import actions, catalogue, plan
from tests.faults.actions import Absent
from tests.faults.catalogue import FAULTS, PAIRS, Stage, build, find, survivable
from tests.faults.health import Cast
from tests.faults.nodes import Nodes
from tests.unit.faults.conftest import CAST, GROUPS, FakeDocker


@pytest.fixture
def stage(nodes: Nodes, docker: FakeDocker, monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.setattr(catalogue, "revokes_early", lambda nodes: True)
    monkeypatch.setattr(actions, "CLOCK_SECONDS", 0)
    return Stage(nodes, CAST, lambda: CAST, lambda verb: None, lambda: None)


def test_a_seed_gives_the_same_plan_and_another_one_another():
    assert plan.steps(7, 60) == plan.steps(7, 60)
    assert plan.steps(7, 60) != plan.steps(8, 60)
    # A longer run begins as the shorter one.
    assert plan.steps(7, 60)[:20] == plan.steps(7, 20)


def test_each_fault_comes_once_before_any_comes_twice_and_pairs_every_fifth_time():
    kinds = plan.unplanned()
    steps = plan.steps(1, 5 * len(kinds))
    singles = [step.name for step in steps if catalogue.PAIR not in step.name]
    assert sorted(singles[: len(kinds)]) == sorted(kinds)
    assert [catalogue.PAIR in step.name for step in steps] == [n % 5 == 4 for n in range(len(steps))]
    assert not {"switchover-app", "switchover-db"} & set(singles)
    assert all(2 <= step.quiet <= 8 for step in steps)
    assert all(find(step.name)[0].dwell <= step.dwell for step in steps)


def test_one_fault_alone_is_repeated():
    assert {step.name for step in plan.steps(1, 20, ["switchover-db"])} == {"switchover-db"}
    assert [len(part) for part in plan.rounds(plan.steps(1, 45))] == [20, 20, 5]


def test_a_name_that_is_unknown_is_said():
    with pytest.raises(LookupError, match="there is no fault 'kill-me'; there are kill-postgres"):
        find("kill-me")


@pytest.mark.parametrize("name", [*FAULTS, *PAIRS])
def test_each_fault_and_pair_happens_and_is_healed(name: str, stage: Stage, docker: FakeDocker):
    action = build(name, stage)
    assert action.hits
    assert action.hits <= set(GROUPS)
    before = len(docker.calls)
    action.prepare()
    action.inject()
    if not find(name)[0].planned:
        assert len(docker.calls) > before
    for _ in range(2):
        action.heal()
    assert set(docker.status.values()) == {"running"}
    assert all(docker.networks.values())


# Whom these hit is no single role, or found by who asks.
ELSEWHERE = {"etcd-majority", "switchover-app", "switchover-db", "clock-lease", "clock-patroni", "kill-leader-watch"}


@pytest.mark.parametrize("name", [name for name in (*FAULTS, *PAIRS) if name not in ELSEWHERE])
def test_a_site_without_the_role_says_so(name: str, stage: Stage):
    nobody = dataclasses.replace(stage, cast=Cast(), look=Cast)
    with pytest.raises(Absent):
        build(name, nobody)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("kill-postgres", True),
        ("kill-node-leader", True),
        ("etcd-minority", True),
        ("etcd-majority", False),
        ("cut-leader-etcd", True),
        # The other database host is the only one left with the database.
        ("isolate-leader + kill-node-replica", False),
        ("kill-postgres + kill-node-replica", False),
        ("kill-node-active + kill-node-spare", False),
        # Two of three voters.
        ("kill-node-replica + kill-node-witness", False),
        ("isolate-leader + kill-node-witness", False),
        ("etcd-minority + kill-node-witness", False),
        # One of each is what the site is made for.
        ("kill-node-replica + kill-node-active", True),
        ("isolate-leader + freeze-active", True),
        ("kill-tornado + kill-node-witness", True),
    ],
)
def test_what_a_site_survives(name: str, expected: bool, stage: Stage):
    assert survivable(name, build(name, stage), GROUPS) is expected


def test_the_leader_is_hit_and_nobody_else(stage: Stage, docker: FakeDocker):
    build("freeze-leader", stage).inject()
    assert [name for name, status in docker.status.items() if status == "paused"] == ["db1"]
    other = dataclasses.replace(stage, cast=dataclasses.replace(CAST, leader="db2", replica="db1"))
    assert build("freeze-leader", other).hits == {"db2"}


def test_planned_moves_run_their_verbs(stage: Stage):
    asked: list[Any] = []
    moving = dataclasses.replace(stage, play=asked.append)
    for name in ("switchover-app", "switchover-db"):
        build(name, moving).inject()
    assert asked == ["switchover_app", "switchover_db"]


def test_every_kind_of_action_is_used_by_some_fault(stage: Stage):
    made = {type(part) for name in FAULTS for part in [build(name, stage)]}
    kinds = {kind for kind in vars(actions).values() if isinstance(kind, type) and issubclass(kind, actions.Action)}
    assert [kind.__name__ for kind in kinds - made if kind.inject is not actions.Action.inject] == []
