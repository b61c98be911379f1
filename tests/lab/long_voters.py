"""Voters come and go: one that was lost with its host is set up anew, one whose data is broken is replaced.

Not part of `tests/run`: pytest tests/lab/long_voters.py, on a converged lab (`make demo`)
"""

from __future__ import annotations

import json
import subprocess
import time

import pytest

from tests.lab.support import wait_for
from tests.lab.verbs import CACHE, Run, Site, refused

OUT = CACHE / "voters"


def done(run: Run) -> Run:
    """A verb that ended well."""
    assert run.status == 0, run.text[-6000:]
    return run


@pytest.fixture(scope="module")
def site() -> Site:
    """The lab with its verbs."""
    running = Site(OUT)
    if not running.answers():
        pytest.skip("no converged lab answers: make demo")
    return running


def voters(site: Site, node: str) -> dict[str, bool]:
    """The members of etcd by name, and whether each is healthy, as a voter sees them."""
    ctl = "/usr/local/sbin/zulip-ha-etcdctl"
    listed = json.loads(site.run(node, f"{ctl} member list -w json"))["members"]
    health = site.run(node, f"{ctl} endpoint health --cluster 2>&1 || true")
    return {
        member.get("name", ""): any(
            url in line and "is healthy" in line for url in member.get("clientURLs", []) for line in health.splitlines()
        )
        for member in listed
    }


def has_standby(site: Site) -> bool:
    """Whether a synchronous standby streams from the leader."""
    asked = "select count(*) from pg_stat_replication where state = 'streaming' and sync_state = 'sync'"
    return site.sql(asked, "postgres") == "1"


def lose(site: Site, node: str) -> None:
    """Take a node away with its disk."""
    container = site.state["nodes"][node]["container"]
    subprocess.run(["docker", "rm", "--force", "--volumes", container], check=True, capture_output=True, timeout=120)


def test_a_lost_host_comes_back_by_the_site_s_own_verb(site: Site) -> None:
    """One that votes and has a replica: etcd forgets its first life, and the database is copied."""
    node = next(node for node in site.in_group("database") if node != site.leader())
    assert node in site.in_group("quorum")
    other = next(voter for voter in site.in_group("quorum") if voter != node)
    with site.load("rebuilt") as load:
        time.sleep(5)
        load.mark(f"{node} is lost")
        lose(site, node)
        time.sleep(15)
        done(site.play("lab/create.yml"))
        load.mark("a new host")
        run = done(site.play("site"))
        load.mark("converged")
        wait_for("a synchronous standby", lambda: has_standby(site), 120)
    assert voters(site, other) == dict.fromkeys(site.in_group("quorum"), True)
    assert {host for host, count in run.changed().items() if count} == {node}
    verdict = load.check("--max-failed", "0", "--max-gap", "12")
    assert verdict.returncode == 0, verdict.stdout + verdict.stderr
    assert set(done(site.play("site")).changed().values()) == {0}
    done(site.play("health"))


def test_a_member_with_broken_data_is_replaced(site: Site) -> None:
    node, *rest = site.in_group("quorum")
    refused(site.play("replace_etcd_member"), "Name the member with -e member=NAME: those are")
    refused(site.play("replace_etcd_member", "-e", "member=app1"), "app1 is no host of the group quorum")
    refused(site.play("replace_etcd_member", "-e", f"member={node}"), "this member is healthy; -e force=true")

    newest = "$(ls /var/lib/etcd/*/member/wal/*.wal | tail -1)"
    site.run(node, f"systemctl stop etcd; dd if=/dev/urandom of={newest} bs=4k count=64 conv=notrunc")
    site.run(node, "timeout 10 systemctl start etcd || true")
    assert voters(site, rest[0])[node] is False
    # With another one down the rest is no majority, and there is no lock to take either.
    site.run(rest[1], "systemctl stop etcd")
    try:
        refused(site.play("replace_etcd_member", "-e", f"member={node}"), "etcd does not answer")
    finally:
        site.run(rest[1], "systemctl start etcd")
    wait_for("a majority", lambda: voters(site, rest[0])[rest[1]], 30)
    done(site.play("replace_etcd_member", "-e", f"member={node}"))
    assert voters(site, rest[0]) == dict.fromkeys(site.in_group("quorum"), True)
    # What was there is kept, beside the mark and what it has now.
    assert site.run(node, "ls -d /var/lib/etcd/*.2* | wc -l") == "1"
    site.run(node, "rm -rf /var/lib/etcd/*.2*")
    done(site.play("health"))


def test_a_voter_without_data_founds_no_second_cluster(site: Site) -> None:
    """Where nobody answers, and others were part of a cluster, it waits for an operator."""
    node, *rest = site.in_group("quorum")
    site.run(node, "systemctl stop etcd; mv /var/lib/etcd/zulip-ha /var/lib/etcd/kept")
    site.run(rest[0], "systemctl stop etcd")
    try:
        run = site.play("site")
        assert run.status != 0
        assert f"{node} has no data of etcd, and nobody answers" in run.refusal, run.refusal
        assert site.run(node, "systemctl is-active etcd || true") != "active"
    finally:
        site.run(rest[0], "systemctl start etcd")
    wait_for("a majority", lambda: voters(site, rest[1])[rest[0]], 30)
    done(site.play("site"))
    assert voters(site, rest[1]) == dict.fromkeys(site.in_group("quorum"), True)
    site.run(node, "rm -rf /var/lib/etcd/kept")
    done(site.play("health"))
