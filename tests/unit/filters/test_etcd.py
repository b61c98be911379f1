"""Which voters may have been part of a cluster."""

from __future__ import annotations

from filter_plugins import etcd

MARK = "/var/lib/etcd/site.joined"
PEERS = [{"name": "db2", "address": "10.0.0.2"}, {"name": "mon1", "address": "10.0.0.3"}]


def found(*paths):
    return {"__etcd_found": {"files": [{"path": path} for path in paths]}}


def test_folders_that_etcd_made_before_it_was_refused_are_no_data():
    assert not etcd.etcd_has_data(found("/var/lib/etcd/site/member/snap")["__etcd_found"])
    assert not etcd.etcd_has_data(found(MARK)["__etcd_found"])
    assert etcd.etcd_has_data(found(MARK, "/var/lib/etcd/site/member/wal")["__etcd_found"])


def test_new_hosts_were_part_of_nothing():
    assert etcd.etcd_maybe_members(PEERS, {"db2": found(), "mon1": found()}, MARK) == []


def test_one_that_began_to_found_a_cluster_which_never_had_a_majority_is_none():
    wal = found("/var/lib/etcd/site/member/wal")
    assert etcd.etcd_maybe_members(PEERS, {"db2": wal, "mon1": wal}, MARK) == []


def test_the_mark_tells_and_so_does_silence():
    assert etcd.etcd_maybe_members(PEERS, {"db2": found(MARK), "mon1": found()}, MARK) == ["db2"]
    # Not in this run, or not reached.
    assert etcd.etcd_maybe_members(PEERS, {"db2": found(), "mon1": {}}, MARK) == ["mon1"]
    unreachable = {"__etcd_found": {"unreachable": True}}
    assert etcd.etcd_maybe_members(PEERS, {"db2": unreachable}, MARK) == ["db2", "mon1"]
