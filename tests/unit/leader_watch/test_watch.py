"""Five observers, one etcd and a simulated clock: what they do about a leader, and what they leave alone."""

from __future__ import annotations

import dataclasses
import json

import pytest

from tests.unit.leader_watch.world import CLUSTER, HOSTS, PREFIX, Site, agent, decision, etcd


def others(name: str) -> list[str]:
    return [host for host in HOSTS if host != name]


def revoked(site: Site) -> bool:
    return site.leads == ""


# --- a leader that is lost --------------------------------------------------------------------------------------------


def test_all_see_the_leader_and_one_holds_the_lock(site):
    status = agent.report(site.hosts["app1"].watch.store.read(), site.hosts["app1"].config)
    assert [(entry["host"], entry["sight"]) for entry in status["observers"]] == [(host, "seen") for host in HOSTS]
    assert status["holder"] == site.holder != "db1"
    assert status["verdict"] == "watch: db1 leads, and is seen by app1, app2, db1, db2, mon1"
    assert (status["leader"], status["synchronous_standbys"]) == ("db1", ["db2"])
    assert status["disarmed"] == ""
    assert status["last_revocation"] is None


def test_a_lost_leader_host_is_replaced_in_five_seconds_and_once(site):
    site.lose("db1")
    took = site.run(20, until=lambda: revoked(site))
    # Not before the time of silence, and not long after: the observer on the leader's host has to fall away as well.
    assert 3.0 <= took <= 5.0
    site.run(30)
    assert len(site.revocations) == 1
    note = site.etcd.value(f"{PREFIX}/last")
    assert (note["leader"], note["at"]) == ("db1", "today")
    assert note["by"] == site.holder


def test_no_moment_of_the_loss_makes_it_slower_than_that():
    """The loss falls anywhere between two looks and two renewals."""
    for tenth in range(15):
        site = Site()
        site.run(3 + tenth / 10)
        site.lose("db1")
        assert 3.0 <= site.run(20, until=lambda site=site: revoked(site)) <= 5.0, tenth


def test_the_lease_of_the_leader_is_left_alone(site):
    """Patroni 3.0 whose lease is gone writes the leader key anew without looking whose it is."""
    site.lose("db1")
    site.run(20, until=lambda: revoked(site))
    assert site.lease in site.etcd.leases


def test_an_old_leader_cannot_drop_its_standby_any_more(site):
    """Its lease still runs, and a loop of Patroni that began before writes /sync, if it is still as it was read."""
    store = site.hosts["app1"].watch.store
    before = store.read().sync
    site.lose("db1")
    site.run(20, until=lambda: revoked(site))
    assert site.etcd.value(f"{CLUSTER}/sync") == {"leader": "db1", "sync_standby": "db2"}
    assert not store._do(etcd.put(before.key, '{"leader": "db1", "sync_standby": null}'), when=[etcd.unchanged(before)])


def test_the_holder_is_lost_along_with_the_leader(site):
    holder = site.holder
    site.lose("db1")
    site.lose(holder)
    assert 3.0 <= site.run(20, until=lambda: revoked(site)) <= 6.0
    assert len(site.revocations) == 1


def test_the_leaders_own_host_gives_the_lock_up(site):
    holder = site.holder
    site.etcd.delete(f"{CLUSTER}/leader")
    site.run(1)
    site.lead(holder, "db1")
    site.run(3)
    assert site.holder not in ("", holder)


def test_the_leaders_own_host_does_not_hold_the_lock_for_want_of_others(site):
    for name in others("db1"):
        site.hosts[name].cut = True
    site.run(4)  # the lease of the one that held it ends
    site.run(6, until=lambda: site.holder)
    assert site.holder == ""


def test_a_frozen_leader_host_is_replaced_and_does_nothing_when_it_thaws(site):
    site.hosts["db1"].frozen = True
    site.renewing = False
    for name in others("db1"):
        site.hosts[name].blind = {"db1"}
    assert site.run(20, until=lambda: revoked(site)) <= 5.0
    site.lead("db2", "db1")
    site.run(5)
    site.hosts["db1"].frozen = False
    site.run(10)
    assert site.leads == "db2"
    assert len(site.revocations) == 1


def test_a_cut_off_leader_that_still_sees_itself_has_no_say(site):
    """Its observer does not reach etcd, so it is none of the living."""
    site.hosts["db1"].cut = True
    site.renewing = False
    for name in others("db1"):
        site.hosts[name].blind = {"db1"}
    assert site.run(20, until=lambda: revoked(site)) <= 5.0


def test_there_is_one_revocation_in_an_incident(site):
    """Whoever leads next and is silent as well is not touched for a while, and not before all have seen it."""
    site.lose("db1")
    site.run(20, until=lambda: revoked(site))
    site.renewing = False
    site.lead("db2", "db3")
    site.run(1.5)
    for host in site.hosts.values():
        host.blind = {"db2"}
    site.run(15)
    assert site.leads == "db2"
    assert any("one revocation in an incident" in line for line in site.said(site.holder))
    assert len(site.revocations) == 1


def test_a_leader_that_took_the_key_again_unseen_keeps_it(site):
    site.lose("db1")
    site.run(20, until=lambda: revoked(site))
    site.etcd.delete(f"{PREFIX}/incident")
    site.renewing = False
    site.etcd.put(f"{CLUSTER}/leader", "db1", site.lease)
    site.run(10)
    assert site.leads == "db1"
    assert len(site.revocations) == 1


def test_a_second_incident_is_one_of_its_own(site):
    site.lose("db1")
    site.run(20, until=lambda: revoked(site))
    site.lost.clear()
    site.lead("db2", "db1")
    site.run(40)
    site.lose("db2")
    assert site.run(20, until=lambda: revoked(site)) <= 5.0
    assert len(site.revocations) == 2


# --- what is no loss --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seeing", HOSTS)
def test_a_single_observer_that_sees_it_vetoes(site, seeing):
    site.renewing = False
    for name in others(seeing):
        site.hosts[name].blind = {"db1"}
    site.run(15)
    assert site.leads == "db1"
    assert any(f"seen by {seeing}" in line for line in site.said(site.holder))


def test_a_leader_that_renews_its_lease_is_not_lost(site):
    """Nobody reaches its Patroni, and Patroni reaches etcd."""
    for host in site.hosts.values():
        host.blind = {"db1"}
    site.run(60)
    assert site.leads == "db1"
    assert any("it renews its lease" in line for line in site.said(site.holder))


def test_a_restart_of_patroni_is_no_loss(site):
    site.refusing = {"db1"}
    site.renewing = False
    site.run(15)
    assert site.leads == "db1"
    assert not site.revocations


def test_a_planned_move_is_no_loss(site):
    site.etcd.put(f"{CLUSTER}/failover", {"leader": "db1", "member": "db2"})
    site.run(1)
    site.lose("db1")  # in the middle of it
    site.run(12)
    assert site.leads == "db1"
    assert any("a planned move is under way" in line for line in site.said(site.holder))


def test_a_move_that_has_ended_is_none(site):
    """Patroni does not delete the key: it writes an empty object."""
    site.etcd.put(f"{CLUSTER}/failover", {})
    site.lose("db1")
    assert site.run(20, until=lambda: revoked(site)) <= 5.0


def test_a_move_for_a_later_time_is_none_yet(site):
    site.etcd.put(f"{CLUSTER}/failover", {"leader": "db1", "scheduled_at": "2030-01-01T00:00:00+00:00"})
    site.lose("db1")
    assert site.run(20, until=lambda: revoked(site)) <= 5.0


def test_a_switchover_is_followed(site):
    site.etcd.delete(f"{CLUSTER}/leader")
    site.run(1)
    site.lead("db2", "db1")
    site.run(10)
    assert site.leads == "db2"
    assert not site.revocations
    assert any("db2 leads, and is seen by app1, app2, db1, db2, mon1" in line for line in site.said(site.holder))


def test_a_restart_of_etcd_is_no_loss(site):
    site.etcd.quorum = False
    site.run(10)
    site.etcd.quorum = True
    site.run(10)
    assert site.leads == "db1"
    assert not site.revocations


def test_without_a_quorum_of_etcd_nothing_is_done(site):
    site.lose("db1")
    site.etcd.quorum = False
    site.run(10)
    site.etcd.quorum = True
    assert f"{CLUSTER}/leader" in site.etcd.keys
    trouble = [line for line in site.said("app1") if "nothing is decided without etcd" in line]
    assert len(trouble) == 1


def test_a_lost_standby_moves_nothing(site):
    site.lose("db2")
    site.run(15)
    assert site.leads == "db1"


def test_without_its_standby_a_lost_leader_stays(site):
    site.lose("db1")
    site.refusing = {"db2"}
    site.run(12)
    assert site.leads == "db1"
    assert any("no synchronous standby answers: db2" in line for line in site.said(site.holder))


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("config", {"synchronous_mode": True, "pause": True}, "Patroni is paused"),
        ("config", {"synchronous_mode": False}, "replication is not synchronous"),
        ("config", "torn", "replication is not synchronous"),
        ("sync", {"leader": "db1", "sync_standby": None}, "no synchronous standby"),
        ("sync", {"leader": "db2", "sync_standby": "db1"}, "no synchronous standby"),
        ("sync", "torn", "no synchronous standby"),
    ],
)
def test_what_patroni_says_is_heeded(site, key, value, says):
    site.etcd.put(f"{CLUSTER}/{key}", value)
    site.lose("db1")
    site.run(12)
    assert site.leads == "db1"
    assert any(says in line for line in site.said(site.holder))


def test_a_minority_does_nothing(site):
    for name in ("app1", "app2"):
        site.lose(name)
    site.lose("db1")
    site.run(12)
    assert site.leads == "db1"
    assert any("fewer than 3 observers" in line for line in site.said(site.holder))


def test_an_observer_that_speaks_nonsense_vetoes(site):
    site.etcd.put(f"{PREFIX}/observers/app9", '{"leader": "db1", "revision": "x"}')
    site.lose("db1")
    site.run(12)
    assert site.leads == "db1"


def test_frozen_observers_are_not_counted_and_decide_nothing_when_they_thaw(site):
    for host in site.hosts.values():
        host.frozen = True
    site.run(60)
    for host in site.hosts.values():
        host.frozen = False
    site.run(20)
    assert site.leads == "db1"
    assert not site.revocations


# --- the switch -------------------------------------------------------------------------------------------------------


def test_disarmed_it_says_what_it_would_do(site):
    site.hosts["app1"].watch.store.disarm(json.dumps({"why": "a drill"}))
    site.lose("db1")
    site.run(12)
    assert site.leads == "db1"
    would = [line for line in site.said(site.holder) if line.startswith("would revoke")]
    assert would == [
        "would revoke: db1 is lost by app1, app2, db2, mon1, and db2 can replace it, but it was disarmed: a drill"
    ]
    assert agent.report(site.hosts["app1"].watch.store.read(), site.hosts["app1"].config)["disarmed"]
    site.hosts["app1"].watch.store.arm()
    site.run(1.5)
    assert revoked(site)


def test_a_dry_run_writes_nothing(site):
    for host in site.hosts.values():
        host.watch.config = dataclasses.replace(host.config, dry_run=True)
    site.lose("db1")
    site.run(12)
    assert site.leads == "db1"
    assert any("leader_watch_dry_run is set" in line for line in site.said(site.holder))


# --- in the moment of the transaction ---------------------------------------------------------------------------------


def at_the_transaction(site: Site, happens) -> None:
    """Something happens after the decision and before etcd has the transaction."""
    done = []

    def during(path: str, body: dict) -> None:
        if any("requestDeleteRange" in request for request in body.get("success", [])) and not done:
            done.append(True)
            happens()

    for host in site.hosts.values():
        host.during = during


def publish(site: Site, host: str, sight: str) -> None:
    revision = site.etcd.keys[f"{CLUSTER}/leader"]["mod_revision"]
    site.etcd.put(f"{PREFIX}/observers/{host}", {"leader": "db1", "revision": revision, "sight": sight})


@pytest.mark.parametrize(
    "happens",
    [
        lambda site: publish(site, "app2", "seen"),
        lambda site: publish(site, "db9", "seen"),
        lambda site: site.etcd.delete(f"{PREFIX}/observers/app2"),
        lambda site: site.etcd.put(f"{CLUSTER}/sync", {"leader": "db1", "sync_standby": None}),
        lambda site: site.etcd.put(f"{CLUSTER}/config", {"synchronous_mode": True, "pause": True}),
        lambda site: site.etcd.put(f"{CLUSTER}/failover", {"leader": "db1"}),
        lambda site: site.etcd.put(f"{PREFIX}/disarmed", {"why": "now"}),
        lambda site: site.etcd.put(f"{PREFIX}/incident", {}),
        lambda site: site.etcd.put(f"{CLUSTER}/leader", "db1", site.lease),
    ],
    ids=["seen", "newcomer", "gone", "sync", "paused", "move", "disarmed", "incident", "leader key"],
)
def test_what_changes_in_between_calls_it_off(site, happens):
    at_the_transaction(site, lambda: happens(site))
    site.lose("db1")
    site.run(5.5, until=lambda: any("not revoked" in line for host in HOSTS for line in site.said(host)))
    assert site.leads == "db1"
    assert not site.revocations
    assert [line for line in site.said(site.holder) if "something changed in that moment" in line]


def test_a_lock_that_was_lost_in_between_calls_it_off(site):
    """Two that believe that they hold it: the one that does not any more changes nothing."""

    def another() -> None:
        site.etcd.delete(f"{PREFIX}/lock")
        host = site.hosts["mon1" if site.hosts["mon1"] is not holder else "app1"]
        site.etcd.put(f"{PREFIX}/lock", {"host": host.name}, host.watch.lease)

    holder = site.hosts[site.holder]
    at_the_transaction(site, another)
    site.lose("db1")
    site.run(20, until=lambda: any("not revoked" in line for line in site.said(holder.name)))
    site.run(2)
    # The new holder looks for itself, and finds the same.
    assert revoked(site)
    assert len(site.revocations) == 1
    assert not any("took" in line for line in site.said(holder.name))


def test_a_holder_that_was_frozen_before_the_transaction_changes_nothing(site):
    """It thaws when another leads: its lock and the leader key are not those that it read."""
    holder = site.hosts[site.holder]

    def sleep() -> None:
        site.etcd.now += 60
        site.etcd.expire()
        site.lost.clear()
        site.lead("db2", "db1")

    at_the_transaction(site, sleep)
    site.lose("db1")
    site.run(10)
    assert site.leads == "db2"
    assert not site.revocations
    assert any("not revoked" in line for line in site.said(holder.name))


def test_two_transactions_at_once_take_one_key(site):
    site.lose("db1")
    site.run(
        20, until=lambda: any("revoke: db1" in line for host in HOSTS for line in site.said(host)) or revoked(site)
    )
    fresh = Site()
    fresh.run(3)
    store = fresh.hosts[fresh.holder].watch.store
    seen = store.read()
    assert store.revoke(seen, "{}", 30)
    assert not store.revoke(seen, "{}", 30)


def test_one_whose_answer_was_lost_is_told_as_done(site):
    """The transaction is sent again to the next endpoint, and fails against itself."""
    store = site.hosts["app1"].watch.store
    call = store._call

    def twice(path: str, body: dict) -> dict:
        if path == "/v3/kv/txn":
            call(path, body)
        return call(path, body)

    seen = store.read()
    assert etcd.Store(twice, CLUSTER, PREFIX).revoke(seen, "{}", 30)


def test_a_revocation_that_was_called_off_leaves_no_lease(site):
    store = site.hosts["app1"].watch.store
    seen = store.read()
    publish(site, "app1", "seen")
    before = set(site.etcd.leases)
    assert not store.revoke(seen, "{}", 30)
    assert set(site.etcd.leases) == before


# --- living and dying -------------------------------------------------------------------------------------------------


def test_an_observer_that_dies_falls_away(site):
    site.lose("app2")
    site.run(4)
    assert f"{PREFIX}/observers/app2" not in site.etcd.keys


def test_one_that_stops_is_gone_at_once_and_so_is_its_lock(site):
    holder = site.holder
    site.hosts[holder].watch.stop()
    site.lose(holder)
    assert f"{PREFIX}/observers/{holder}" not in site.etcd.keys
    site.run(1)
    assert site.holder not in ("", holder)


def test_one_that_comes_back_is_an_observer_again(site):
    site.hosts["app2"].cut = True
    site.run(10)
    site.hosts["app2"].cut = False
    site.run(2)
    assert site.etcd.value(f"{PREFIX}/observers/app2")["sight"] == "seen"


def test_one_that_was_started_again_overwrites_its_last_words(site):
    site.hosts["app2"].start()
    site.run(4)
    pair = site.etcd.keys[f"{PREFIX}/observers/app2"]
    assert pair["lease"] == site.hosts["app2"].watch.lease


def test_the_lock_of_an_earlier_life_is_not_held(site):
    """Its lease ends by itself; whoever takes the lock then holds it by a lease that it renews."""
    holder = site.hosts[site.holder]
    holder.lines.clear()
    holder.start()
    site.run(1.5)
    assert not any(line.startswith("watch") for line in site.said(holder.name))
    site.run(4)
    assert site.hosts[site.holder].watch.lease == site.etcd.keys[f"{PREFIX}/lock"]["lease"]


def test_other_words_for_the_same_silence_are_not_published(site):
    """Each publication is another revision, and calls off a revocation that is under way."""
    host = site.hosts["app1"]
    host.watch.store.disarm("{}")
    site.lose("db1")
    site.run(8)
    key = f"{PREFIX}/observers/app1"
    before = dict(site.etcd.keys[key])
    assert site.etcd.value(key)["sight"] == "lost"
    now = site.etcd.now
    host.watch.step([decision.Look(host.watch.leadership, decision.SILENT, now - 0.1, now, "No route to host")])
    assert site.etcd.keys[key] == before


def test_each_change_is_one_line(site):
    site.run(60)
    for host in site.hosts.values():
        assert len([line for line in host.lines if "db1 is seen" in line]) == 1, host.lines
        assert len(host.lines) == len({line.split(" ", 1)[1] for line in host.lines})
    quiet = site.etcd.revision
    site.run(60)
    # And nothing is written while nothing changes.
    assert site.etcd.revision == quiet


def test_the_journal_of_an_incident(site):
    holder = site.hosts[site.holder]
    holder.lines.clear()
    site.lose("db1")
    site.run(20, until=lambda: revoked(site))
    said = site.said(holder.name)
    assert said.count("db1 is lost: silent") == 1
    assert "watch: db1 leads, and is seen by app1, app2, db2, mon1" in said
    assert said[-2:] == [
        "revoke: db1 is lost by app1, app2, db2, mon1, and db2 can replace it",
        "took the leader key from db1: db1 is lost by app1, app2, db2, mon1, and db2 can replace it",
    ]


def test_facts_of_the_two_modes_of_patroni(site):
    store, config = site.hosts["app1"].watch.store, site.hosts["app1"].config
    site.etcd.put(f"{CLUSTER}/config", {"synchronous_mode": "quorum"})
    site.etcd.put(f"{CLUSTER}/sync", {"leader": "db1", "sync_standby": "db2, db3", "quorum": 1})
    facts = agent.read_facts(store.read(), config)
    assert facts.synchronous
    assert facts.sync_standbys == ("db2", "db3")
    assert facts.leader == decision.Leadership("db1", facts.leader.revision, site.lease)
