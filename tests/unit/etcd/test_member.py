"""A host's place in the etcd cluster, against a cluster that answers as etcd does (3.4 and 3.5)."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.unit.app.paths import load_program

program = load_program("roles/etcd/files/etcd_member", "etcd_member")


def client(name: str) -> str:
    return f"https://{name}:2379"


def peer(name: str) -> str:
    return f"https://{name}:2380"


class Cluster:
    """Members by name, those that answer, and what was asked of it that changes something."""

    def __init__(self, *names: str) -> None:
        self.known = {name: {"ID": number, "name": name, "peerURLs": [peer(name)], "clientURLs": [client(name)]}
                      for number, name in enumerate(names, 0xA0)}  # fmt: skip
        self.alive = set(names)
        self.changes: list[str] = []
        self.starts = True
        self.joining = ""
        self.lead = names[0]
        self.index = dict.fromkeys(names, 100)

    def majority(self) -> bool:
        return len([name for name in self.known if name in self.alive]) > len(self.known) // 2

    def etcdctl(self, endpoint: str, *arguments: str) -> str:
        name = endpoint.removeprefix("https://").removesuffix(":2379").replace("127.0.0.1", self.joining)
        if name not in self.alive:
            raise subprocess.CalledProcessError(1, "etcdctl", "", "context deadline exceeded")
        match arguments:
            case ("endpoint", "health"):
                if not self.majority():
                    raise subprocess.CalledProcessError(1, "etcdctl", "", "etcdserver: no leader")
                return f"{endpoint} is healthy"
            case ("endpoint", "status", _):
                ids = {known: entry["ID"] for known, entry in self.known.items()}
                return json.dumps([{"Status": {"header": {"member_id": ids[name]}, "leader": ids[self.lead],
                                               "raftAppliedIndex": self.index[name]}}])  # fmt: skip
            case ("member", "list", _):
                return json.dumps({"members": list(self.known.values())})
            case ("member", "remove", number):
                gone = next(known for known, entry in self.known.items() if f"{entry['ID']:x}" == number)
                del self.known[gone]
            case ("member", "add", added, option):
                # etcd keeps no name before the start.
                url = option.removeprefix("--peer-urls=")
                self.known[added] = {"ID": 0xFFFFFFFFFFFFFF00 + len(self.changes), "name": "", "peerURLs": [url]}
            case ("move-leader", number):
                self.lead = next(known for known, entry in self.known.items() if f"{entry['ID']:x}" == number)
        self.changes.append(" ".join(arguments[:3]))
        return ""


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster("db1", "db2", "mon1")
    monkeypatch.setattr(program, "etcdctl", lambda *arguments: made.etcdctl(*arguments))

    def systemctl(command: list[str], **_: object) -> None:
        if command == ["systemctl", "daemon-reload"]:
            return
        assert command == ["systemctl", "restart", "etcd.service"]
        made.changes.append("start")
        if made.starts:
            made.known[made.joining] |= {"name": made.joining, "clientURLs": [client(made.joining)]}
            made.alive.add(made.joining)

    monkeypatch.setattr(program.subprocess, "run", systemctl)
    return made


def join(cluster: Cluster, name: str, path: Path, patience: float = 0) -> str:
    cluster.joining = name
    others = [client(known) for known in ("mon1", "db1", "db2") if known != name]
    return program.join(
        name, peer(name), client("127.0.0.1"), others, "etcd.service", str(path / "run/join.env"), patience
    )


def environment(path: Path) -> dict[str, str]:
    lines = (path / "run/join.env").read_text().splitlines()
    return {name: value.strip('"') for name, _, value in (line.partition("=") for line in lines)}


def test_a_member_that_lost_its_data_has_a_new_life(cluster: Cluster, tmp_path: Path) -> None:
    cluster.alive.discard("db2")
    assert join(cluster, "db2", tmp_path) == "db2 has a new life"
    assert cluster.changes == ["member remove a1", "member add db2", "start"]
    said = environment(tmp_path)
    assert said["ETCD_INITIAL_CLUSTER_STATE"] == "existing"
    assert sorted(said["ETCD_INITIAL_CLUSTER"].split(",")) == [
        f"{name}={peer(name)}" for name in ("db1", "db2", "mon1")
    ]


def test_a_new_voter_is_added(cluster: Cluster, tmp_path: Path) -> None:
    assert join(cluster, "app1", tmp_path) == "app1 is a member"
    assert cluster.changes == ["member add app1", "start"]
    assert f"app1={peer('app1')}" in environment(tmp_path)["ETCD_INITIAL_CLUSTER"].split(",")


def test_a_run_that_was_killed_after_it_added_goes_on(cluster: Cluster, tmp_path: Path) -> None:
    cluster.etcdctl(client("db1"), "member", "add", "app1", f"--peer-urls={peer('app1')}")
    cluster.changes.clear()
    assert join(cluster, "app1", tmp_path) == "app1 is a member"
    assert cluster.changes == ["start"]


def test_another_that_never_started_is_named_by_its_address(cluster: Cluster, tmp_path: Path) -> None:
    cluster.etcdctl(client("db1"), "member", "add", "app2", f"--peer-urls={peer('app2')}")
    join(cluster, "app1", tmp_path)
    assert f"app2={peer('app2')}" in environment(tmp_path)["ETCD_INITIAL_CLUSTER"].split(",")


def test_a_member_that_answers_is_not_replaced(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(program.Refused, match="db2 is a member already, and answers at https://db2:2379"):
        join(cluster, "db2", tmp_path)
    assert cluster.changes == []


def test_nothing_is_taken_out_that_the_rest_could_not_do_without(cluster: Cluster, tmp_path: Path) -> None:
    for name in ("app1", "app2"):
        cluster.known[name] = {"ID": 7, "name": name, "peerURLs": [peer(name)], "clientURLs": [client(name)]}
    cluster.alive = {"db1", "db2", "mon1"}
    cluster.joining = "app1"
    assert join(cluster, "app1", tmp_path) == "app1 has a new life"
    cluster.alive -= {"app1", "db2"}
    cluster.changes.clear()
    with pytest.raises(program.Refused, match="no member answers"):
        join(cluster, "app1", tmp_path)
    assert cluster.changes == []


def test_without_a_majority_nothing_is_asked_for(cluster: Cluster, tmp_path: Path) -> None:
    cluster.alive = {"mon1"}
    with pytest.raises(program.Refused, match="no member answers at https://mon1:2379, https://db1:2379"):
        join(cluster, "db2", tmp_path)
    assert program.look([client("mon1"), client("db1")]) == {"answers": False, "healthy": [], "members": []}


def test_one_that_does_not_come_up_is_said_so(cluster: Cluster, tmp_path: Path) -> None:
    cluster.alive.discard("db2")
    cluster.starts = False
    with pytest.raises(program.Refused, match="is not healthy after 0 s"):
        join(cluster, "db2", tmp_path)


def test_what_the_others_know(cluster: Cluster) -> None:
    cluster.alive.discard("db1")
    seen = program.look([client("db1"), client("db2")])
    assert (seen["answers"], seen["healthy"]) == (True, [client("db2")])
    assert [member["name"] for member in seen["members"]] == ["db1", "db2", "mon1"]


def test_a_member_leaves_for_good(cluster: Cluster) -> None:
    assert program.remove("db2", [client("mon1"), client("db1")]) == "db2 is no member any more"
    assert cluster.changes == ["member remove a1"]
    assert program.remove("db2", [client("mon1")]) == ""


def test_a_member_stays_that_the_rest_needs(cluster: Cluster) -> None:
    cluster.alive.discard("db1")
    with pytest.raises(program.Refused, match="only 1 of the other members are healthy, and a cluster of 2 needs 2"):
        program.remove("db2", [client("mon1")])
    assert cluster.changes == []


def test_the_lead_goes_to_the_first_that_is_fit(cluster: Cluster) -> None:
    cluster.index["mon1"] = 100 - program.LAG - 1
    assert program.lead(client("db1"), [client("mon1"), client("db2")]) == client("db2")
    assert cluster.lead == "db2"
    # Who does not lead has nothing to hand over.
    assert program.lead(client("db1"), [client("mon1")]) == ""


def test_nobody_fit_is_said(cluster: Cluster) -> None:
    cluster.alive.discard("mon1")
    with pytest.raises(program.Refused, match="still leading: https://mon1:2379: context deadline exceeded"):
        program.lead(client("db1"), [client("mon1")])
