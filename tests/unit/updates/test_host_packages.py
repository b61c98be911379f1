"""The hosts' program for holds and plans: against a host made of files and answers."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.unit.app.paths import load_program

packages = load_program("roles/base/files/host_packages", "host_packages")


class FakeHost:
    """Answers the programs that are asked, and remembers what is on hold."""

    def __init__(self, held: dict[str, bool]):
        self.held = held
        self.calls: list[list[str]] = []
        self.answers: dict[str, str] = {}
        self.locked = 0

    def run(self, command: list[str], check: bool = True) -> str:
        self.calls.append(command)
        if command[:2] == ["dpkg-query", "--show"]:
            rows = [f"{'hold' if hold else 'install'} installed {name}" for name, hold in self.held.items()]
            return "\n".join(
                [*rows, "deinstall config-files old", "install half-configured broken", "hold not-installed ghost"]
            )
        if command[0] == "apt-mark":
            if self.locked:
                self.locked -= 1
                raise packages.PackagesError("apt-mark hold: E: Could not get lock")
            self.held.update(dict.fromkeys(command[2:], command[1] == "hold"))
            return ""
        return self.answers.get(command[0], "")


@pytest.fixture
def host(monkeypatch, tmp_path) -> FakeHost:
    fake = FakeHost({"redis-server": False, "redis-tools": False, "nginx": True, "libc6:amd64": False, "tzdata": False})
    monkeypatch.setattr(packages, "run", fake.run)
    monkeypatch.setattr(packages, "RECORD", tmp_path / "state/held.json")
    monkeypatch.setattr(packages, "PATTERNS", tmp_path / "held-packages")
    (tmp_path / "held-packages").write_text("# by us\nredis*\nnginx\n\npatroni\n")
    return fake


def on_hold(host: FakeHost) -> list[str]:
    return sorted(name for name, hold in host.held.items() if hold)


def test_hold_and_release_leave_an_administrators_hold_alone(host):
    assert packages.hold() == "2 packages on hold, 2 of them since now"
    assert on_hold(host) == ["nginx", "redis-server", "redis-tools"]
    assert packages.hold() == "2 packages on hold"
    assert [call[:2] for call in host.calls].count(["apt-mark", "hold"]) == 1
    packages.release()
    assert on_hold(host) == ["nginx"]
    packages.hold()
    assert on_hold(host) == ["nginx", "redis-server", "redis-tools"]


def test_what_is_no_longer_listed_is_let_go(host, tmp_path):
    packages.hold()
    (tmp_path / "held-packages").write_text("redis-tools\n")
    packages.hold()
    assert on_hold(host) == ["nginx", "redis-tools"]
    assert packages.read_record() == ["redis-tools"]


def test_a_hold_that_was_taken_away_by_hand_comes_back(host):
    packages.hold()
    host.held["redis-server"] = False
    packages.hold()
    assert "redis-server" in on_hold(host)


def test_killed_between_the_record_and_the_hold(host):
    packages.write_record(["redis-server", "redis-tools"])
    packages.hold()
    packages.release()
    assert on_hold(host) == ["nginx"]


def test_killed_while_letting_go(host, tmp_path, monkeypatch):
    packages.hold()
    (tmp_path / "held-packages").write_text("redis-tools\n")

    def killed(verb: str, names: list[str]) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(packages, "mark", killed)
        with pytest.raises(KeyboardInterrupt):
            packages.hold()
    packages.hold()
    assert on_hold(host) == ["nginx", "redis-tools"]


def test_packages_that_are_not_installed_are_not_held(host):
    packages.hold()
    assert not [call for call in host.calls if call[0] == "apt-mark" and {"patroni", "ghost", "old"} & set(call)]


def test_another_apt_is_waited_for(host, monkeypatch):
    monkeypatch.setattr(packages, "lock_holder", lambda: "apt (process 1)")
    monkeypatch.setattr(packages.time, "sleep", lambda _: None)
    host.locked = 2
    packages.hold()
    assert "redis-server" in on_hold(host)
    host.locked = 1
    monkeypatch.setattr(packages, "lock_holder", lambda: "")
    with pytest.raises(packages.PackagesError):
        packages.release()


def test_without_a_list_nothing_is_held(host, tmp_path):
    (tmp_path / "held-packages").unlink()
    assert packages.hold() == "0 packages on hold"


def test_the_holder_of_the_lock_is_told_without_taking_it(tmp_path):
    path = tmp_path / "lock"
    path.touch()
    assert packages.lock_holder(path) == ""
    assert packages.lock_holder(tmp_path / "none") == ""
    holder = textwrap.dedent(
        f"""
        import fcntl, time
        stream = open({str(path)!r}, "w")
        fcntl.lockf(stream, fcntl.LOCK_EX)
        print("locked", flush=True)
        time.sleep(30)
        """
    )
    with subprocess.Popen([sys.executable, "-c", holder], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        process.stdout.readline()
        assert packages.lock_holder(path).endswith(f"(process {process.pid})")
        process.kill()


SIMULATION = """\
Reading package lists...
Inst redis-server [5:7.0.15-1] (5:7.0.16-1 Debian-Security:12/oldstable-security [amd64]) []
Inst libc6 [2.36-9] (2.36-9+u1 Debian:12.15/oldstable [amd64])
Inst linux-image-6.1.0-50-amd64 (6.1.170-1 Debian-Security:12/oldstable-security [amd64])
Remv old-thing [1.0-1]
Conf libc6 (2.36-9+u1 Debian:12.15/oldstable [amd64])
"""


def test_the_simulation_is_read():
    plan = packages.parse_simulation(SIMULATION)
    assert plan["upgradable"] == [
        {"name": "libc6", "from": "2.36-9", "to": "2.36-9+u1", "security": False},
        {"name": "redis-server", "from": "5:7.0.15-1", "to": "5:7.0.16-1", "security": True},
    ]
    assert [entry["name"] for entry in plan["new"]] == ["linux-image-6.1.0-50-amd64"]
    assert [entry["name"] for entry in plan["removed"]] == ["old-thing"]


def test_what_an_administrator_holds_is_kept(host):
    host.answers["apt-get"] = SIMULATION
    plan = packages.simulate("safe", ["libc6:amd64"])
    assert plan["kept"] == ["libc6"]
    assert [entry["name"] for entry in plan["upgradable"]] == ["redis-server"]
    assert plan["broken"] == ""
    assert host.calls[-1][-2:] == ["upgrade", "--with-new-pkgs"]


def test_broken_dependencies_are_told(monkeypatch):
    def fails(command: list[str], check: bool = True) -> str:
        raise packages.PackagesError("apt-get --simulate: E: Unmet dependencies")

    monkeypatch.setattr(packages, "run", fails)
    assert packages.simulate("dist", [])["broken"] == "apt-get --simulate: E: Unmet dependencies"


MAPS = "7f0 r-xp 0000 08:01 42   {}\n7f1 rw-p 0000 00:00 0\n7f2 r--p 00 08:01 7  /usr/lib/libm.so\n"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/usr/lib/x86_64-linux-gnu/libssl.so.3 (deleted)", True),
        ("/usr/bin/redis check-rdb (deleted)", True),
        ("/lib/x86_64-linux-gnu/libc.so.6 (deleted)", True),
        ("/usr/lib/libssl.so.3", False),
        ("/memfd:doublemapper (deleted)", False),
        ("/dev/shm/PostgreSQL.12 (deleted)", False),
        ("/tmp/ffi (deleted)", False),
    ],
)
def test_replaced_files_that_a_process_maps(path, expected):
    assert packages.uses_deleted(MAPS.format(path)) is expected


@pytest.mark.parametrize(
    ("cgroup", "service"),
    [
        ("0::/system.slice/redis-server.service\n", "redis-server.service"),
        ("0::/system.slice/system-zulip\\x2dtornado.slice/zulip-tornado@9800.service\n", "zulip-tornado@9800.service"),
        ("0::/user.slice/user-0.slice/user@0.service/app.slice/x.service\n", "user@0.service"),
        ("12:cpu:/\n1:name=systemd:/system.slice/nginx.service\n", "nginx.service"),
        ("0::/init.scope\n", ""),
        ("", ""),
    ],
)
def test_the_service_of_a_process(cgroup, service):
    assert packages.service_of(cgroup) == service


def test_services_with_old_code_are_found(tmp_path):
    for pid, name, path in (
        ("1", "a", "/usr/lib/x (deleted)"),
        ("2", "b", "/usr/lib/x"),
        ("3", "", "/usr/lib/x (deleted)"),
    ):
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "maps").write_text(MAPS.format(path))
        (tmp_path / pid / "cgroup").write_text(f"0::/system.slice/{name}.service\n" if name else "0::/\n")
    (tmp_path / "4").mkdir()
    assert packages.with_old_code(tmp_path) == {"a.service"}


def service(path: str, started: float) -> dict[str, str]:
    return {"FragmentPath": path, "ExecMainStartTimestampMonotonic": str(int(started * 1e6))}


def test_services_whose_packages_were_replaced_are_outdated():
    services = {
        "patroni.service": service("/lib/patroni.service", 100),
        "rabbitmq-server.service": service("/lib/rabbit.service", 100),
        "redis-server.service": service("/lib/redis.service", 300),
        "zulip-django.service": service("/etc/zulip-django.service", 100),
        "etcd.service": service("/lib/etcd.service", 100),
    }
    owners = {
        "/lib/patroni.service": "patroni",
        "/lib/rabbit.service": "rabbitmq-server",
        "/lib/redis.service": "redis-server",
        "/lib/etcd.service": "etcd-server",
    }
    times = {"patroni": 1200.0, "erlang-base": 1200.0, "redis-server": 1200.0, "etcd-server": 1050.0}
    found = packages.outdated(
        services,
        {"zulip-django.service", "gone.service"},
        owners,
        {"rabbitmq-server": ["erlang-base"]},
        lambda name: times.get(name, 0.0),
        1000.0,
    )
    assert found == ["patroni.service", "rabbitmq-server.service", "zulip-django.service"]


def test_what_a_package_needs(host, monkeypatch):
    text = "rabbitmq-server\terlang-base (>= 1:25) | esl-erlang, libc6 (>= 2.3), adduser, socat, python3:any\nnginx\t\n"
    monkeypatch.setattr(packages, "run", lambda command, check=True: text)
    found = packages.dependencies(["rabbitmq-server", "nginx"])
    assert found == {"rabbitmq-server": ["erlang-base", "esl-erlang", "socat", "python3"], "nginx": []}
    assert packages.dependencies([]) == {}


def test_whose_a_unit_file_is(monkeypatch):
    text = "redis-server: /lib/systemd/system/redis-server.service\ndiversion by a from: /x\na, b: /usr/lib/c\n"
    monkeypatch.setattr(packages, "run", lambda command, check=True: text)
    found = packages.packages_of(["/lib/systemd/system/redis-server.service", "/usr/lib/c", "/etc/own.service"])
    assert found == {"/lib/systemd/system/redis-server.service": "redis-server", "/usr/lib/c": "a"}


def test_reasons_for_a_reboot(tmp_path):
    none = tmp_path / "none"
    assert packages.reboot_reason([], "6.1.0-10-amd64", none) == ""
    assert packages.reboot_reason(["6.1.0-9-amd64", "6.1.0-10-amd64"], "6.1.0-10-amd64", none) == ""
    said = packages.reboot_reason(["6.1.0-9-amd64", "6.1.0-10-amd64"], "6.1.0-9-amd64", none)
    assert said == "kernel 6.1.0-10-amd64 is installed, 6.1.0-9-amd64 runs"
    asked = tmp_path / "reboot-required"
    asked.touch()
    assert packages.reboot_reason([], "6.1", asked) == "asked for by a package"
    (tmp_path / "reboot-required.pkgs").write_text("linux-image\ndbus\ndbus\n")
    assert packages.reboot_reason([], "6.1", asked) == "asked for by dbus, linux-image"


def test_the_plan_on_the_machine_of_the_test(monkeypatch, capsys, host):
    """The whole program, with the answers of a host."""
    monkeypatch.setattr(packages, "in_container", lambda: True)
    monkeypatch.setattr(packages, "interrupted", lambda: False)
    monkeypatch.setattr(packages, "with_old_code", lambda: {"dbus.service", "ssh.service"})
    started = {"dbus.service": service("", 1), "ssh.service": service("", 1)}
    monkeypatch.setattr(packages, "running_services", lambda: started)
    host.answers["apt-get"] = SIMULATION
    monkeypatch.setattr(sys, "argv", ["host_packages", "plan"])
    assert packages.main() == 0
    plan: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (plan["restart"], plan["left"]) == (["ssh.service"], ["dbus.service"])
    assert plan["container"] is True
    assert plan["kept"] == []


def test_a_failure_is_one_line(monkeypatch, capsys):
    def fails(command: list[str], check: bool = True) -> str:
        raise packages.PackagesError("dpkg-query: no")

    monkeypatch.setattr(packages, "run", fails)
    monkeypatch.setattr(sys, "argv", ["host_packages", "hold"])
    assert packages.main() == 1
    assert capsys.readouterr().err == "host_packages: hold: dpkg-query: no\n"


def test_a_program_that_fails_is_told_by_its_errors(tmp_path):
    script = tmp_path / "apt-get"
    script.write_text("#!/bin/sh\necho reading; echo 'N: note' >&2; echo 'E: Unmet dependencies' >&2; exit 100\n")
    script.chmod(0o755)
    with pytest.raises(packages.PackagesError, match="E: Unmet dependencies$"):
        packages.run([str(script)])
    assert packages.run([str(script)], check=False) == "reading\n"


def test_the_program_says_what_it_can(tmp_path):
    path = Path(packages.__file__)
    done = subprocess.run([sys.executable, path, "plan", "--mode", "full"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "invalid choice" in done.stderr
