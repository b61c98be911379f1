"""The backup host's part: what a killed server left, what is forgotten, and when nothing is."""

from __future__ import annotations

import hashlib
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.unit.app.paths import load_program

maintenance = load_program("roles/restic/files/restic_maintenance", "restic_maintenance")
rc = sys.modules["restic_client"]

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
LOCKED = {"rc": 1, "err": "unable to create lock in backend: repository is already locked by PID 1 on app1"}
WRONG = {"rc": 1, "err": "Fatal: wrong password or no key found"}
ABSENT = {"rc": 1, "err": "Fatal: unable to open config file: x\nIs there a repository at the following location?\n/r"}


def stored(folder: Path, content: bytes, whole: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / hashlib.sha256(content).hexdigest()
    path.write_bytes(content if whole else content[:-1])
    return path


def item(time: datetime, tag: str = "uploads", host: str = "app1") -> dict[str, Any]:
    return {"id": "f" * 64, "time": rc.utc(time), "host": host, "tags": [tag]}


def raw(time: datetime, tag: str = "uploads") -> dict[str, Any]:
    return {"id": "f" * 64, "time": rc.utc(time), "hostname": "app1", "tags": [tag]}


def test_half_written_files_are_put_aside_and_whole_ones_stay(tmp_path):
    good, half = stored(tmp_path / "data/ab", b"good"), stored(tmp_path / "index", b"half", whole=False)
    assert maintenance.tidy(tmp_path) == [f"index/{half.name}"]
    assert good.exists()
    assert not half.exists()
    assert (tmp_path / "damaged/index" / half.name).exists()
    assert maintenance.tidy(tmp_path) == []


def test_a_file_that_cannot_be_read_keeps_no_server_from_starting(tmp_path, monkeypatch, capsys):
    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    path = stored(tmp_path / "data", b"of root")
    monkeypatch.setattr(maintenance, "digest", refuse)
    assert maintenance.tidy(tmp_path) == []
    assert path.exists()
    assert "Permission denied" in capsys.readouterr().out


def test_an_empty_directory_is_tidy(tmp_path):
    assert maintenance.tidy(tmp_path) == []


def test_uploads_are_kept_by_site_and_the_rest_by_host():
    words = maintenance.forget_words({"within": "7d", "daily": 3, "hourly": 0}, "uploads")
    assert words == ["forget", "--tag", "uploads", "--group-by", "tags", "--keep-within", "7d", "--keep-daily", "3"]
    assert "host,tags" in maintenance.forget_words({"daily": 3}, "configuration")


def test_tags_of_others_are_left_alone():
    found = [item(NOW, "uploads"), item(NOW, "by-hand")]
    assert maintenance.tags_of(found, ["configuration", "uploads"]) == ["uploads"]


def test_what_is_missing_or_old_is_told():
    times = maintenance.newest([item(NOW - timedelta(hours=3)), item(NOW - timedelta(hours=60), "configuration")])
    expected = [
        {"tag": "uploads", "host": "", "hours": 4},
        {"tag": "configuration", "host": "app1", "hours": 50},
        {"tag": "configuration", "host": "db1", "hours": 50},
    ]
    told = list(maintenance.stale(times, expected, NOW))
    assert len(told) == 2
    assert "the last backup of configuration of app1" in told[0]
    assert told[1] == "there is no backup of configuration of db1"


def test_nothing_is_forgotten_beside_snapshots_from_the_future(fake, calls, tmp_path):
    found = json.dumps([raw(datetime.now(UTC) + timedelta(days=9))])
    config = fake({"snapshots": [{"out": found}], "list": [{}]})
    assert not maintenance.Maintenance(config, rc.Restic(config)).run(["prune"])
    assert not any("forget" in call or "prune" in call for call in calls())
    assert "from the future" in json.loads((tmp_path / "restic-maintenance.json").read_text())["problems"][0]


def test_a_long_backup_puts_prune_off_but_not_for_ever(fake, tmp_path):
    config = fake({"list": [{}], "snapshots": [{"out": json.dumps([raw(datetime.now(UTC))])}], "forget": [LOCKED]})
    work = maintenance.Maintenance(config, rc.Restic(config))
    assert work.run(["prune"])
    path = tmp_path / "restic-maintenance.json"
    old = json.loads(path.read_text()) | {"pruned": "2026-01-01T00:00:00Z"}
    path.write_text(json.dumps(old))
    assert not work.run(["prune"])


def test_a_check_that_finds_damage_fails(fake, tmp_path):
    config = fake({"list": [{}], "check": [{"rc": 1, "err": "pack abc: not found\nFatal: repository contains errors"}]})
    assert not maintenance.Maintenance(config, rc.Restic(config)).run(["check"])
    assert "pack abc: not found" in json.loads((tmp_path / "restic-maintenance.json").read_text())["problems"][0]


def test_a_repository_is_made_once(fake, calls):
    config = fake({"cat": [ABSENT, {}], "init": [{}]})
    work = maintenance.Maintenance(config, rc.Restic(config))
    assert work.init()
    assert not work.init()
    assert sum("init" in call for call in calls()) == 1


@pytest.mark.parametrize("answer", [WRONG, {"rc": 1, "err": "Fatal: connection refused"}])
def test_a_repository_that_does_not_open_is_refused(fake, calls, answer):
    config = fake({"cat": [answer], "init": [{}]})
    Path(config["repository"], "config").touch()
    with pytest.raises(rc.ResticError):
        maintenance.Maintenance(config, rc.Restic(config)).init()
    assert not any("init" in call for call in calls())


def test_an_init_that_was_killed_is_made_whole(fake):
    config = fake({"cat": [WRONG], "init": [{}]})
    key = Path(config["repository"], "keys", "b" * 64)
    key.parent.mkdir()
    key.touch()
    assert maintenance.Maintenance(config, rc.Restic(config)).init()
    assert not key.exists()


def test_data_without_a_config_is_refused(fake):
    config = fake({"cat": [ABSENT], "init": [{}]})
    stored(Path(config["repository"], "snapshots"), b"x")
    with pytest.raises(rc.ResticError, match="nothing was changed"):
        maintenance.Maintenance(config, rc.Restic(config)).init()
