"""The check of faults can fail: with what protects from a loss taken away, it has to see the loss.

Not part of `tests/run`: pytest tests/faults/long_red.py
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.faults import actions
from tests.faults.actions import Action, Cut, Drop, Together, sweep
from tests.faults.campaign import OUT, Campaign, Operator
from tests.faults.catalogue import FAULTS, Fault, Stage
from tests.faults.nodes import Nodes
from tests.faults.plan import Step
from tests.lab.support import Lab, wait_for


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    """The lab's nodes, whole again afterwards."""
    found = Nodes(Lab().state)
    yield found
    assert sweep(found) == []


def campaign_with(
    monkeypatch: pytest.MonkeyPatch, name: str, build: Callable[[Stage], Action], dwell: float
) -> Campaign:
    """A campaign of a fault that no catalogue has, because it is worse than a site can survive."""
    monkeypatch.setitem(FAULTS, name, Fault(name, "", build, dwell, survived=False, recovery=180))
    made = Campaign(name, OUT / "test")
    made.run([Step(name, 2.0, dwell)])
    return made


@contextmanager
def configured(nodes: Nodes, **settings: Any) -> Iterator[None]:
    """Another dynamic configuration of Patroni, and the one from before afterwards."""
    node = nodes.in_group("database")[0]
    before = {name: json.loads(nodes.sh(node, SHOW, name)) for name in settings}

    def configure(wanted: dict[str, Any]) -> None:
        pairs = [word for name, value in wanted.items() for word in ("--set", f"{name}={json.dumps(value)}")]
        nodes.sh(node, 'patronictl edit-config --force --quiet "$@"', *pairs, timeout=60)

    configure(settings)
    try:
        yield
    finally:
        configure(before)


SHOW = """
patronictl show-config | python3 -c '
import json, sys, yaml
print(json.dumps(yaml.safe_load(sys.stdin).get(sys.argv[1])))' "$1"
"""


class LoseTheLeaderBehindItsStandby(Action):
    """The standby gets nothing more; the leader goes on to say that all is stored, and is lost."""

    def __init__(self, nodes: Nodes, leader: str, replica: str) -> None:
        super().__init__(nodes, leader, replica)
        # Its WAL alone: Patroni goes on to ask how far each is.
        way = [Drop(replica, "input", (nodes.addresses[leader],), (5432,))]
        self.cut, self.kill = Cut(nodes, way), actions.PowerOff(nodes, leader)

    @property
    def down(self) -> frozenset[str]:
        return self.kill.hits

    blind = down

    def inject(self) -> None:
        self.cut.inject()
        time.sleep(4)
        self.kill.inject()
        self.cut.heal()

    def heal(self) -> None:
        Together(self.cut, self.kill).heal()


def test_without_a_synchronous_standby_acknowledged_messages_are_lost_and_that_is_seen(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(stage: Stage) -> Action:
        return LoseTheLeaderBehindItsStandby(stage.nodes, stage.cast.leader, stage.cast.replica)

    # The health of a site asks for a synchronous standby, and this one is not to have one.
    monkeypatch.setattr("tests.faults.health.Health.problems", without("no synchronous standby"))
    with configured(nodes, synchronous_mode=False, maximum_lag_on_failover=104857600):
        made = campaign_with(monkeypatch, "red-asynchronous", build, 40)
    assert made.result["load"]["messages"]["lost"], made.result["violations"]
    assert any("acknowledged messages are lost" in one for one in made.result["violations"])


def without(problem: str) -> Callable[[Any], list[str]]:
    """Return a look at the health of a site that does not mind one problem."""
    from tests.faults.health import Health

    problems = Health.problems
    return lambda self: [one for one in problems(self) if problem not in one]


IGNORE_LEASE = """
systemctl stop zulip-ha-lease.service
mkdir -p /run/zulip-ha
echo 1 >/run/zulip-ha/active
echo 0 >/run/zulip-ha/vrrp
systemctl start --no-block zulip-active.target
"""


class IgnoreTheLease(Action):
    """The spare takes itself for the active host, whatever etcd says. An agent that starts undoes what it finds."""

    def inject(self) -> None:
        for node in self.hits:
            self.nodes.sh(node, IGNORE_LEASE)

    def heal(self) -> None:
        for node in self.hits:
            self.nodes.sh(node, "systemctl start zulip-ha-lease.service", timeout=60)


def test_a_host_that_ignores_the_lease_is_seen(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    made = campaign_with(monkeypatch, "red-lease", lambda stage: IgnoreTheLease(stage.nodes, stage.cast.spare), 5)
    assert made.result["samples"]["two_active"], made.result["violations"]
    assert any("were active at once" in one for one in made.result["violations"])


# The agent's own configuration says what is flushed; nothing to flush is what a release without memcached has.
LEAVE_OUT_FLUSH = """
[ -e /etc/zulip-ha/lease.json.before-fault ] || cp -a /etc/zulip-ha/lease.json /etc/zulip-ha/lease.json.before-fault
python3 - <<'END'
import json
path = "/etc/zulip-ha/lease.json"
with open(path) as file:
    values = json.load(file)
values["memcached"] = None
with open(path, "w") as file:
    json.dump(values, file)
END
systemctl reload zulip-ha-lease.service
"""
FLUSH_AGAIN = """
[ ! -e /etc/zulip-ha/lease.json.before-fault ] || {
    mv /etc/zulip-ha/lease.json.before-fault /etc/zulip-ha/lease.json
    systemctl reload zulip-ha-lease.service
}
"""


@pytest.fixture
def no_flush(nodes: Nodes) -> Iterator[None]:
    """A site whose agents flush nothing."""
    for node in nodes.in_group("app"):
        nodes.sh(node, LEAVE_OUT_FLUSH)
    yield
    for node in nodes.in_group("app"):
        nodes.sh(node, FLUSH_AGAIN)


def test_a_cache_that_is_not_flushed_is_seen(no_flush: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """There and back again: a role that is changed on the other host is an old one in the cache of the first."""
    made = Campaign("red-flush", OUT / "test")
    # A change on each host that becomes active, seen by the readers of profiles before the next move.
    made.run([Step("switchover-app", 15.0, 0.0)] * 2)
    assert made.result["looked_for_stale_caches"], "the release has no command that changes a role"
    assert made.result["load"]["stale"], made.result["violations"]
    assert any("show what had been changed before" in one for one in made.result["violations"])


def test_the_same_moves_with_a_flush_show_nothing_stale() -> None:
    """Else the test before would prove nothing about the flush."""
    made = Campaign("green-flush", OUT / "test")
    made.run([Step("switchover-app", 15.0, 0.0)] * 2)
    assert made.result["looked_for_stale_caches"]
    assert made.result["load"]["stale"] == []


def test_a_service_that_stays_away_takes_hands_and_that_is_seen(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recovery that needed hands is no recovery."""

    class StaysAway(actions.Gone):
        def heal(self) -> None:
            """Nobody does."""

    name, spare = "red-hands", lambda stage: StaysAway(stage.nodes, stage.cast.spare, "redis-server.service")
    monkeypatch.setitem(FAULTS, name, Fault(name, "", spare, 2, recovery=20))
    made = Campaign(name, OUT / "test")
    made.run([Step(name, 2.0, 2.0)])
    assert any("it took hands" in one for one in made.result["violations"])
    wait_for("a site that is whole", lambda: made.health.problems() == [], 60)


def test_an_operator_changes_a_role_and_puts_it_back(nodes: Nodes) -> None:
    """What the test of the flush rests on: the server shows what the operator did."""
    made = Campaign("red-operator", OUT / "test")
    user = next(user for user in made.server.users if user.get("role") == "member")
    client = made.server.client(user)
    from tests.load.history import History

    path = OUT / "test/operator.jsonl"
    path.unlink(missing_ok=True)
    operator = Operator(made.nodes, made.health, History(path, new=True), user["email"])
    operator.change()
    assert operator.works
    assert client.get_profile()["role"] == 300
    operator.put_back()
    assert client.get_profile()["role"] == 400
