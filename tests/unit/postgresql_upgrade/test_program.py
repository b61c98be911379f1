"""The hosts' program for major upgrades: what it reads, what it removes, and what it does when it is run again."""

from __future__ import annotations

import argparse
import base64
import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.unit.app.paths import load_program

major = load_program("roles/postgresql/files/postgresql_major", "postgresql_major")
CONTROL = """pg_control version number:            1300
Database system identifier:           7711498804438122895
Database cluster state:               shut down
Latest checkpoint location:           0/24313340
Latest checkpoint's REDO location:    0/24313340
Latest checkpoint's TimeLineID:       2
Bytes per WAL segment:                67108864
Data page checksum version:           1
"""


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host made of files, on which nothing is run."""
    monkeypatch.setattr(major, "DATA", tmp_path / "data")
    monkeypatch.setattr(major, "MARKER", tmp_path / "state/postgresql-upgrade.json")
    monkeypatch.setattr(major, "PATRONI", tmp_path / "config.yml")
    monkeypatch.setattr(major, "running", lambda version: False)
    monkeypatch.setattr(major, "control", lambda version: {"system": str(version)})
    monkeypatch.setattr(major, "own", lambda path, mode=0o700: (path.mkdir(parents=True, exist_ok=True), path)[1])
    for version in (15, 17):
        (tmp_path / f"data/{version}/main/global").mkdir(parents=True)
        (tmp_path / f"data/{version}/main/PG_VERSION").write_text(f"{version}\n")
    (tmp_path / "config.yml").write_text("postgresql:\n  data_dir: /var/lib/postgresql/15/main\n")
    return tmp_path


def options(**values: Any) -> argparse.Namespace:
    return argparse.Namespace(
        **{"source": 15, "target": 17, "mode": "copy", "jobs": 2, "initdb": [], "port": 5432} | values
    )


def test_control_file() -> None:
    assert major.parse_control(CONTROL) == {
        "system": "7711498804438122895",
        "state": "shut down",
        "checkpoint": "0/24313340",
        "timeline": "2",
        "segment": "67108864",
        "checksums": "1",
    }


def test_initdb_follows_the_old_cluster() -> None:
    template = {"encoding": "UTF8", "datcollate": "C.UTF-8", "datctype": "C.UTF-8", "datlocprovider": "c"}
    state = major.parse_control(CONTROL)
    made = major.initdb_options(template, state, 17)
    assert {"--encoding=UTF8", "--lc-collate=C.UTF-8", "--wal-segsize=64", "--data-checksums"} <= set(made)
    without = major.initdb_options(template, state | {"checksums": "0"}, 18)
    assert "--no-data-checksums" in without
    assert not {"--data-checksums", "--no-data-checksums"} & set(
        major.initdb_options(template, state | {"checksums": "0"}, 17)
    )
    icu = major.initdb_options(template | {"datlocprovider": "i", "daticulocale": "und"}, state, 17)
    assert {"--locale-provider=icu", "--icu-locale=und"} <= set(icu)
    builtin = major.initdb_options(template | {"datlocprovider": "b", "datlocale": "C.UTF-8"}, state, 18)
    assert {"--locale-provider=builtin", "--builtin-locale=C.UTF-8"} <= set(builtin)


@pytest.mark.parametrize(("mode", "last"), [("copy", None), ("link", "--link"), ("clone", "--clone")])
def test_modes(mode: str, last: str | None) -> None:
    arguments = major.upgrade_arguments(15, 17, Path("/new"), mode, 2)
    assert (arguments[-1] if arguments[-1] in ("--link", "--clone") else None) == last
    assert "--old-options=-c synchronous_standby_names= -c archive_mode=off" in arguments


def test_the_version_that_is_deployed(host: Path) -> None:
    assert major.deployed_version() == 15
    (host / "config.yml").unlink()
    assert major.deployed_version() == 0


def test_the_marker_grows_and_goes(host: Path) -> None:
    major.mark(argparse.Namespace(values=json.dumps({"phase": "prepared", "size": 1})))
    answer = major.mark(argparse.Namespace(values=json.dumps({"phase": "stopped"})))
    assert answer["marker"] == {"phase": "stopped", "size": 1}
    assert os.listdir(major.MARKER.parent) == ["postgresql-upgrade.json"]
    major.forget(argparse.Namespace())
    major.forget(argparse.Namespace())
    assert major.read(major.MARKER) == {}


def test_what_is_in_use_is_not_removed(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(major.StepError, match="names version 15"):
        major.remove(argparse.Namespace(version=15, replica=False, system=""))
    monkeypatch.setattr(major, "running", lambda version: True)
    with pytest.raises(major.StepError, match="a server runs"):
        major.remove(argparse.Namespace(version=17, replica=False, system=""))
    assert (host / "data/15/main").exists()
    assert (host / "data/17/main").exists()


def test_removal(host: Path) -> None:
    (host / "data/17/upgraded.json").write_text("{}")
    assert major.remove(argparse.Namespace(version=17, replica=False, system=""))["changed"]
    assert not (host / "data/17").exists()
    assert not major.remove(argparse.Namespace(version=17, replica=False, system=""))["changed"]


def test_a_replica_keeps_data_of_the_same_cluster(host: Path) -> None:
    assert not major.remove(argparse.Namespace(version=15, replica=True, system="15"))["changed"]
    assert major.remove(argparse.Namespace(version=15, replica=True, system="other"))["changed"]


def test_something_else_beside_the_data_stays(host: Path) -> None:
    (host / "data/17/notes").write_text("mine")
    major.remove(argparse.Namespace(version=17, replica=False, system=""))
    assert os.listdir(host / "data/17") == ["notes"]


def test_what_pg_upgrade_hid_comes_back(host: Path) -> None:
    hidden = host / "data/15/main/global/pg_control.old"
    hidden.write_text("x")
    assert major.revive(argparse.Namespace(version=15)) == {"changed": True}
    assert major.revive(argparse.Namespace(version=15)) == {"changed": False}
    assert not hidden.exists()


class Postgres:
    """Does what initdb and pg_upgrade leave behind."""

    def __init__(self, code: int = 0) -> None:
        self.code, self.calls = code, []  # type: int, list[str]

    def __call__(self, arguments: Sequence[str], **_: Any) -> subprocess.CompletedProcess[str]:
        name = os.path.basename(arguments[0])
        self.calls.append(name)
        if name == "initdb":
            Path(arguments[-1]).mkdir(parents=True)
            (Path(arguments[-1]) / "PG_VERSION").write_text("17\n")
        return subprocess.CompletedProcess(arguments, self.code if name == "pg_upgrade" else 0, "", "no room\nFailure")


def test_an_upgrade_that_was_killed_begins_anew(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    postgres = Postgres()
    monkeypatch.setattr(major, "as_postgres", postgres)
    (host / "data/17/main/half").write_text("written")
    (host / "data/15/main/global/pg_control.old").write_text("x")
    found = major.upgrade_now(options(mode="link"))
    assert found["passed"]
    assert postgres.calls == ["initdb", "pg_upgrade"]
    assert not (host / "data/17/main/half").exists()
    assert (host / "data/15/main/global/pg_control").exists()
    assert major.read(major.result_file(17))["passed"]


def test_a_fresh_cluster_is_used(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    postgres = Postgres()
    monkeypatch.setattr(major, "as_postgres", postgres)
    assert major.initialize(options()) == {"changed": True}
    assert major.initialize(options()) == {"changed": False}
    major.upgrade_now(options())
    assert postgres.calls == ["initdb", "pg_upgrade"]
    # One that was filled is no longer fresh.
    assert not major.fresh_file(17).exists()


def test_a_failure_is_told(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(major, "as_postgres", Postgres(1))
    found = major.upgrade_now(options())
    assert not found["passed"]
    assert "no room | Failure" in found["said"]


def test_an_upgrade_that_is_done_is_not_done_again(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(major, "unit_state", lambda unit: "inactive")
    monkeypatch.setattr(major, "run", lambda *_, **__: pytest.fail("something was run"))
    major.write(major.result_file(17), {"passed": True, "seconds": 7})
    assert major.upgrade(options()) == {"passed": True, "seconds": 7}


def test_who_comes_second_waits(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = iter(["active", "active", "active", "inactive"])
    monkeypatch.setattr(major, "unit_state", lambda unit: next(states))
    monkeypatch.setattr(major.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(major, "run", lambda *_, **__: pytest.fail("it was begun twice"))
    found = major.upgrade(options())
    assert not found["passed"]
    assert "without a result" in found["said"]


def test_the_configuration_of_the_cluster_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def etcd(endpoints: Sequence[str], path: str, body: dict[str, str]) -> dict[str, Any]:
        asked.append({key: base64.b64decode(value).decode() for key, value in body.items()})
        return {"deleted": "1"} if path == "/v3/kv/deleterange" else {}

    monkeypatch.setattr(major, "etcd", etcd)
    answer = major.forget_cluster(argparse.Namespace(prefix="/service/chat", endpoints=["https://127.0.0.1:2379"]))
    assert answer["changed"]
    keys = [body["key"] for body in asked]
    assert "/service/chat/initialize" in keys
    assert {"key": "/service/chat/members/", "range_end": "/service/chat/members0"} in asked
    assert all(not "/service/chat/config".startswith(key) for key in keys)
