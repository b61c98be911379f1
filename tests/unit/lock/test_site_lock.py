"""The lock of the site's runs against an etcd of our own: who gets it, who is refused, what a race ends in."""

from __future__ import annotations

import base64
import json

import pytest
from ansible.module_utils.testing import patch_module_args

from library import site_lock

KEY = "/zulip-ha/lab/run-lock"
ENCODED = base64.b64encode(KEY.encode()).decode()
FIRST = {"machine": "m1", "boot": "b1", "namespace": "n1", "pid": 11, "start": 5, "by": "iago@c1", "began": "T1"}
SECOND = {**FIRST, "machine": "m2", "boot": "b2", "pid": 22, "by": "desdemona@c2", "began": "T2"}


@pytest.fixture
def ask(etcd, capsys):
    def call(run, check=False, endpoints=None, **more):
        arguments = {"key": KEY, "endpoints": endpoints or [etcd.url], "run": run, "verb": "upgrade", **more}
        with patch_module_args({**arguments, "_ansible_check_mode": check}), pytest.raises(SystemExit):
            site_lock.main()
        return json.loads(capsys.readouterr().out)

    return call


def test_a_free_site_is_taken_with_a_lease(etcd, ask):
    result = ask(FIRST, minutes=7, phase="migrate")
    assert (result["changed"], result["how"], result["before"]) == (True, "taken", {})
    assert etcd.record(KEY) == {**FIRST, "verb": "upgrade", "phase": "migrate"}
    assert list(etcd.leases.values()) == [420]


def test_the_same_run_prolongs_and_leaves_no_lease_behind(etcd, ask):
    ask(FIRST)
    result = ask({**FIRST, "began": "later"}, expected=True, phase="move", minutes=60)
    assert (result["changed"], result["how"]) == (False, "prolonged")
    assert etcd.record(KEY) == {**FIRST, "verb": "upgrade", "phase": "move"}
    assert list(etcd.leases.values()) == [3600]


def test_another_run_is_refused_in_one_line(etcd, ask):
    ask(FIRST, phase="migrate", minutes=10)
    before = etcd.keys.copy()
    result = ask(SECOND)
    assert result["refused"]
    for part in ("upgrade by iago@c1 since T1, in the phase migrate (process 11 there)", "10 min", "lock_take=true"):
        assert part in result["refused"]
    assert "\n" not in result["refused"]
    assert result["before"]["by"] == "iago@c1"
    assert etcd.keys == before


@pytest.mark.parametrize("field", ["machine", "boot", "namespace", "pid", "start"])
def test_each_part_of_the_identity_counts(ask, field):
    ask(FIRST)
    assert ask({**FIRST, field: "other"})["refused"]


def test_a_lease_that_ended_frees_the_site(etcd, ask):
    ask(FIRST)
    etcd.revoke(next(iter(etcd.leases)))
    assert ask(SECOND)["how"] == "taken"


def test_force(etcd, ask):
    ask(FIRST)
    result = ask(SECOND, take=True)
    assert (result["how"], result["before"]["by"]) == ("forced", "iago@c1")
    assert etcd.record(KEY)["by"] == "desdemona@c2"
    assert len(etcd.leases) == 1


def test_who_lost_the_lock_stops_at_its_next_phase(etcd, ask):
    ask(FIRST)
    ask(SECOND, take=True)
    result = ask(FIRST, expected=True, take=True)
    assert result["refused"]
    assert result["lost"]
    assert "taken away" in result["refused"]
    assert "desdemona@c2" in result["refused"]
    assert etcd.record(KEY)["by"] == "desdemona@c2"


def test_a_lock_that_ran_out_is_taken_again(etcd, ask):
    ask(FIRST)
    etcd.revoke(next(iter(etcd.leases)))
    assert ask(FIRST, expected=True)["how"] == "again"


def test_a_dead_run_is_followed_only_while_its_record_is_the_one_that_was_judged(etcd, ask):
    ask(FIRST)
    revision = ask(SECOND)["revision"]
    assert ask(SECOND, dead=revision - 1)["refused"]
    assert ask(SECOND, dead=revision)["how"] == "followed"
    third = {**FIRST, "pid": 33}
    assert ask(third, dead=revision)["refused"]


def test_two_that_take_it_at_once(etcd, ask):
    def overtake():
        etcd.leases[1] = 60
        etcd.put(ENCODED, base64.b64encode(json.dumps(FIRST).encode()).decode(), 1)

    etcd.between = overtake
    assert "iago@c1" in ask(SECOND)["refused"]
    assert list(etcd.leases) == [1]


def test_an_answer_that_was_lost(etcd, ask):
    etcd.lose = 1
    assert ask(FIRST, endpoints=[etcd.url, etcd.url])["how"] == "taken"
    assert etcd.record(KEY)["by"] == "iago@c1"
    assert len(etcd.leases) == 1


def test_what_somebody_wrote_by_hand_counts(etcd, ask):
    etcd.put(ENCODED, base64.b64encode(b"hands off").decode(), 0)
    result = ask(FIRST)
    assert "something by somebody" in result["refused"]
    assert "does not end by itself" in result["refused"]
    assert ask(FIRST, take=True)["how"] == "forced"


def test_giving_back(etcd, ask):
    ask(FIRST)
    result = ask(SECOND, state="free")
    assert (result["changed"], result["how"], result["before"]["by"]) == (False, "none", "iago@c1")
    assert ask(FIRST, state="free", check=True)["changed"]
    assert etcd.record(KEY)
    assert ask(FIRST, state="free")["how"] == "freed"
    assert (etcd.keys, etcd.leases) == ({}, {})
    assert not ask(FIRST, state="free")["changed"]


def test_check_mode_reads_and_refuses(etcd, ask):
    assert ask(FIRST, check=True)["changed"]
    assert (etcd.keys, etcd.calls) == ({}, ["/v3/kv/range"])
    ask(FIRST)
    etcd.calls.clear()
    assert ask(SECOND, check=True)["refused"]
    assert ask(SECOND, check=True, expected=True)["refused"]
    assert set(etcd.calls) <= {"/v3/kv/range", "/v3/lease/timetolive"}
    etcd.revoke(next(iter(etcd.leases)))
    assert ask(SECOND, check=True, expected=True)["how"] == "taken"


def test_a_member_that_does_not_answer_is_passed_over(etcd, ask):
    assert ask(FIRST, endpoints=["http://127.0.0.1:1", "https://127.0.0.1:1", etcd.url])["how"] == "taken"


def test_a_run_that_has_the_lock_is_patient(etcd, ask, monkeypatch):
    ask(FIRST)
    now, ask_once = [0.0], site_lock.Etcd._ask

    def busy(self, endpoint, path, body):
        if now[0] < 20:
            raise OSError("no leader")
        return ask_once(self, endpoint, path, body)

    monkeypatch.setattr(site_lock.Etcd, "_ask", busy)
    monkeypatch.setattr(site_lock.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(site_lock.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    assert "no leader" in ask(FIRST, expected=True, patience=19)["refused"]
    now[0] = 0.0
    assert ask(FIRST, expected=True, patience=21)["how"] == "prolonged"


def test_no_etcd_is_one_line(ask):
    result = ask(FIRST, endpoints=["http://127.0.0.1:1"])
    assert "etcd does not answer" in result["refused"]
    assert "\n" not in result["refused"]
