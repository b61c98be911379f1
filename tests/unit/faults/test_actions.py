"""Faults happen to the right nodes, are undone whatever state those are in, and touch nothing that is not the lab's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults import actions
from tests.faults.actions import Absent, Drop, Together, sweep
from tests.faults.nodes import NodeError, Nodes, NotOurs, run_docker
from tests.unit.faults.conftest import GROUPS, STATE, FakeDocker

SCRIPTS = {
    name: value
    for name, value in vars(actions).items()
    if name.isupper() and isinstance(value, str) and ("\n" in value or " " in value)
}


def test_a_container_of_somebody_else_is_refused(docker: FakeDocker):
    docker.labels["db2"] = ""
    with pytest.raises(NotOurs, match="lab-db2"):
        Nodes(STATE, docker)
    docker.labels["db2"] = "another"
    with pytest.raises(NotOurs, match="'another'"):
        Nodes(STATE, docker)


def test_a_command_that_hangs_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    fake = tmp_path / "docker"
    fake.write_text("#!/bin/sh\nexec sleep 30\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    begun = time.monotonic()
    with pytest.raises(NodeError, match="not within"):
        run_docker(["ps"], 0.3)
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_scripts_are_right_for_the_shell(name: str, tmp_path: Path):
    script = tmp_path / "script"
    script.write_text(f"#!/bin/bash\nset -euo pipefail\n{SCRIPTS[name]}")
    subprocess.run(["bash", "-n", str(script)], check=True)
    found = shutil.which("shellcheck") or f"{Path(sys.executable).parent}/shellcheck"
    # SC2086: routes are words on purpose.
    done = subprocess.run([found, "--exclude=SC2086", str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


# --- kill -9 ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> subprocess.Popen[bytes]:
    """A systemctl that knows one unit, `one.service`, whose main process is a real one."""
    process = subprocess.Popen(["sleep", "30"])
    fake = tmp_path / "systemctl"
    fake.write_text(
        f"""#!/bin/bash
case "$*" in
    "list-units"*one.service*) echo "one.service loaded active running" ;;
    "list-units"*) ;;
    "show"*) echo {process.pid} ;;
    "kill"*) [ -e {tmp_path}/broken ] || kill -KILL {process.pid} ;;
esac
"""
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return process


def kill(unit: str) -> subprocess.CompletedProcess[str]:
    words = ["bash", "-euo", "pipefail", "-c", actions.KILL, "bash", unit, "all"]
    return subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)


def test_a_kill_is_over_when_the_process_is_gone(systemctl: subprocess.Popen[bytes]):
    assert kill("one.service").returncode == 0
    assert systemctl.wait(1) == -9


def test_a_kill_of_nothing_has_not_happened(systemctl: subprocess.Popen[bytes]):
    assert "two.service does not run" in kill("two.service").stderr
    systemctl.kill()


def test_a_process_that_survives_is_seen(systemctl: subprocess.Popen[bytes], tmp_path: Path):
    (tmp_path / "broken").touch()
    assert "one.service survived" in kill("one.service").stderr
    systemctl.kill()


# --- the network -----------------------------------------------------------------------------------------------------


def test_rules_name_addresses_of_their_family_and_never_the_node_itself():
    assert Drop("a", "input").rules() == ['iifname != "lo" counter drop']
    assert Drop("a", "output", ("192.0.2.1", "2001:db8::1", "192.0.2.2")).rules() == [
        'oifname != "lo" ip daddr { 192.0.2.1, 192.0.2.2 } counter drop',
        'oifname != "lo" ip6 daddr { 2001:db8::1 } counter drop',
    ]
    assert Drop("a", "input", ("192.0.2.1",), (2379, 2380)).rules() == [
        'iifname != "lo" ip saddr { 192.0.2.1 } tcp dport { 2379, 2380 } counter drop',
        'iifname != "lo" ip saddr { 192.0.2.1 } tcp sport { 2379, 2380 } counter drop',
    ]


def test_a_cut_between_two_drops_at_both_and_is_deleted_at_both(nodes: Nodes, docker: FakeDocker):
    cut = actions.between(nodes, "app1", "app2")
    cut.inject()
    assert "saddr { 192.0.2.12 }" in docker.said("nft", "lab-app1")[-1][-1]
    assert "saddr { 192.0.2.11 }" in docker.said("nft", "lab-app2")[-1][-1]
    assert all("policy accept" in call[-1] for call in docker.said("nft"))
    docker.calls.clear()
    for _ in range(2):
        cut.heal()
    assert len(docker.said("delete table inet zulip_ha_fault")) == 4
    assert not docker.said("flush ruleset")


def test_one_way_drops_at_the_target_alone(nodes: Nodes, docker: FakeDocker):
    actions.one_way(nodes, "app1", "app2").inject()
    assert docker.said("nft", "lab-app2")
    assert not docker.said("nft", "lab-app1")


def test_a_cut_from_etcd_leaves_all_other_ports(nodes: Nodes, docker: FakeDocker):
    cut = actions.from_etcd(nodes, "db1")
    cut.inject()
    rules = docker.said("nft", "lab-db1")[-1][-1]
    assert rules.count("counter drop") == 4
    assert all("2379" in line for line in rules.splitlines() if "drop" in line)
    assert "192.0.2.13" not in rules
    assert cut.voters == {"db1"}
    assert not cut.down


def test_a_cable_comes_back_with_its_address(nodes: Nodes, docker: FakeDocker):
    unplug = actions.Unplug(nodes, "db1")
    unplug.inject()
    assert docker.networks["db1"] == []
    # The second time Docker does not find the interface, which has its old name again.
    assert "ip link delete" in docker.said("exec", "lab-db1")[-1][-3]
    docker.calls.clear()
    for _ in range(2):
        unplug.heal()
    assert docker.said("network connect") == [["network", "connect", "--ip", "192.0.2.13", "labnet", "lab-db1"]]


# --- nodes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [actions.KillNode, actions.PowerOff, actions.Freeze])
def test_nodes_run_again_however_often_they_are_healed(nodes: Nodes, docker: FakeDocker, kind: type[actions.Action]):
    action = kind(nodes, "app1")
    assert action.down == action.blind == {"app1"}
    action.inject()
    assert docker.status["app1"] != "running"
    for _ in range(2):
        action.heal()
    assert docker.status["app1"] == "running"


def test_what_did_not_happen_is_no_fault(nodes: Nodes, docker: FakeDocker):
    docker.status["app1"] = "exited"
    for action in (actions.KillNode(nodes, "app1"), actions.Freeze(nodes, "app1"), actions.FullLog(nodes, "app1")):
        with pytest.raises(NodeError):
            action.inject()


@pytest.mark.parametrize(
    "make",
    [
        lambda nodes: actions.Gone(nodes, "app1", "redis-server.service"),
        lambda nodes: actions.FullDatabaseDisk(nodes, "app1"),
        lambda nodes: actions.FullLog(nodes, "app1"),
        lambda nodes: actions.WrongSecret(nodes, "app1"),
        lambda nodes: actions.Clock(nodes, "x.service", ["app1"], lambda: "app1", lambda: None),
        lambda nodes: actions.isolate(nodes, "app1"),
    ],
)
def test_what_is_left_in_a_node_that_does_not_run_needs_no_healing(nodes: Nodes, docker: FakeDocker, make):
    docker.status["app1"] = "exited"
    make(nodes).heal()
    assert not docker.said("exec")


# --- several ---------------------------------------------------------------------------------------------------------


def test_of_two_faults_that_which_takes_the_node_down_comes_last(nodes: Nodes, docker: FakeDocker):
    both = Together(actions.KillNode(nodes, "db1"), actions.Gone(nodes, "db1", "etcd.service"))
    both.inject()
    assert docker.status["db1"] == "exited"
    assert both.hits == both.down == both.voters == {"db1"}


def test_a_fault_that_cannot_be_healed_keeps_no_other_from_it(nodes: Nodes, docker: FakeDocker):
    both = Together(actions.Freeze(nodes, "app1"), actions.Freeze(nodes, "db1"))
    both.inject()
    docker.refuse = lambda words: words[0] == "unpause" and words[-1] == "lab-db1"
    with pytest.raises(NodeError, match="refused"):
        both.heal()
    assert docker.status["app1"] == "running"


def test_a_clock_that_a_release_cannot_move_is_left_out(nodes: Nodes, docker: FakeDocker):
    docker.refuse = lambda words: "time.sleep" in " ".join(words)
    with pytest.raises(Absent, match="leaves sleeps alone"):
        actions.Clock(nodes, "x.service", ["app1"], lambda: "app1", lambda: None).prepare()
    assert not docker.said("99-zulip-ha-fault.conf")


def test_a_clock_is_prepared_everywhere_and_moved_where_the_role_is_then(
    nodes: Nodes, docker: FakeDocker, monkeypatch: pytest.MonkeyPatch
):
    waited: list[int] = []
    role = iter(["db1", "db2"])
    monkeypatch.setattr(actions, "CLOCK_SECONDS", 0)
    action = actions.Clock(
        nodes, "patroni.service", ["db1", "db2"], lambda: next(role), lambda: waited.append(len(docker.calls))
    )
    action.prepare()
    # The one that plays the role is the last to start anew, and nobody does so while another is not back.
    order = [call for call in docker.calls if "99-zulip-ha-fault.conf" in " ".join(call)]
    assert ["lab-db2" in order[0], "lab-db1" in order[1]] == [True, True]
    assert len(waited) == 2
    docker.calls.clear()
    action.inject()
    assert docker.said("+3600", "lab-db2")
    assert not docker.said("+3600", "lab-db1")


def test_a_sweep_undoes_everything_on_every_node(nodes: Nodes, docker: FakeDocker):
    docker.status.update(app1="paused", db1="exited")
    docker.networks["db2"] = []
    assert sweep(nodes) == []
    assert set(docker.status.values()) == {"running"}
    assert docker.networks["db2"] == ["labnet"]
    for node in GROUPS:
        assert docker.said("delete table", f"lab-{node}")
        assert docker.said("unmask", f"lab-{node}")
        assert docker.said("umount", f"lab-{node}")
        assert docker.said("99-zulip-ha-fault.conf", f"lab-{node}")
    assert {call[3] for call in docker.said("prlimit")} == {"lab-db1", "lab-db2"}
    assert {call[3] for call in docker.said("before-fault")} == {"lab-app1", "lab-app2"}


def test_a_sweep_says_what_it_cannot_undo_and_goes_on(nodes: Nodes, docker: FakeDocker):
    docker.status.update(app1="paused", app2="paused")
    docker.refuse = lambda words: words[0] == "unpause" and words[-1] == "lab-app1"
    assert "refused: unpause lab-app1" in sweep(nodes)
    assert docker.status["app2"] == "running"
