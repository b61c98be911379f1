"""The client: what counts as a failure, which snapshot is restored, and that no secret is in a list of processes."""

from __future__ import annotations

import argparse
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.app.paths import load_program

backup = load_program("roles/restic/files/restic_backup", "restic_backup")
rc = sys.modules["restic_client"]

SUMMARY = {
    "message_type": "summary",
    "total_files_processed": 2,
    "total_bytes_processed": 9,
    "snapshot_id": "abcdef0123",
}
GONE_14 = {"message_type": "error", "error": {"Op": "lstat", "Path": "/x/gone", "Err": 2}, "item": "/x/gone"}
GONE_18 = {"message_type": "error", "error": {"message": "lstat /x/b: no such file or directory"}, "item": "/x/b"}
ID = "a" * 64
NO_CONFIG = "Fatal: unable to open config file: "
WHERE = "Is there a repository at the following location?\n/r"


def done(status: int, *items: dict[str, Any], said: str = "") -> Any:
    return rc.Done(status, [json.dumps(item) for item in items], said)


def snapshot(number: int, time: str, host: str = "app1", tag: str = "uploads") -> dict[str, Any]:
    return {"id": f"{number:064x}", "time": time, "hostname": host, "tags": [tag], "paths": ["/x"]}


def listed(*items: dict[str, Any]) -> list[dict[str, Any]]:
    return [rc.simplified(item) for item in items]


def test_files_that_vanish_are_named_and_fail_nothing():
    outcome = backup.judge(done(3, GONE_14, GONE_18, SUMMARY), "r")
    assert (outcome.problem, outcome.vanished) == ("", ["/x/gone", "/x/b"])


def test_a_file_that_cannot_be_read_is_a_failure(tmp_path):
    file = tmp_path / "f"
    file.touch()
    error = {"message_type": "error", "error": {"message": f"open {file}: permission denied"}, "item": str(file)}
    outcome = backup.judge(done(3, GONE_14, error, SUMMARY), "r")
    assert "saved without 1 that could not be read" in outcome.problem
    assert str(file) in outcome.problem


def test_errors_on_standard_error_count_too():
    outcome = backup.judge(done(3, SUMMARY, said=json.dumps(GONE_14)), "r")
    assert (outcome.problem, outcome.vanished) == ("", ["/x/gone"])


def test_status_three_without_a_cause_is_a_failure():
    assert backup.judge(done(3, SUMMARY, said="Warning: something"), "r").problem == "Warning: something"


def test_nothing_saved_is_a_failure():
    assert backup.judge(done(0, SUMMARY | {"total_files_processed": 0}), "r").problem == "nothing was saved"


def test_no_snapshot_is_a_failure():
    assert backup.judge(done(0), "r").problem == "restic named no snapshot"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("Fatal: wrong password or no key found\n", "does not open with vault_restic_password"),
        (f"{NO_CONFIG}<config/> does not exist\n{WHERE}", "no repository at r"),
        (f"{NO_CONFIG}x509\n{WHERE}", "cannot open r: x509"),
        ('{"message_type":"exit_error","code":1,"message":"Fatal: disk is full"}', "disk is full"),
        ("Fatal: unable to save snapshot: 403\n", "unable to save snapshot: 403"),
        ("", "status 1"),
    ],
)
def test_restic_failures_are_one_line(said, told):
    line = rc.reason(rc.Done(1, [], said), "r")
    assert told in line
    assert "\n" not in line


def test_a_run_leaves_state_and_metrics(fake, calls, tmp_path):
    config = fake({"backup": [{"out": json.dumps(SUMMARY)}]})
    assert backup.Backup(config, rc.Restic(config)).run([])
    state = json.loads((tmp_path / "restic.json").read_text())
    assert state["runs"]["all"]["ok"]
    assert state["parts"]["configuration"]["files"] == 2
    assert 'zulip_ha_restic_ok{run="all"} 1\n' in (tmp_path / "zulip_ha_restic.prom").read_text()
    assert not any("secret-word" in word for call in calls() for word in call)


def test_a_folder_that_is_missing_fails_and_keeps_the_last_good_run(fake, tmp_path):
    config = fake({"backup": [{"out": json.dumps(SUMMARY)}]})
    assert backup.Backup(config, rc.Restic(config)).run([])
    config["paths"] = ["/nonexistent"]
    assert not backup.Backup(config, rc.Restic(config)).run([])
    state = json.loads((tmp_path / "restic.json").read_text())
    assert state["runs"]["all"]["problems"] == {"configuration": "/nonexistent is missing"}
    assert state["parts"]["configuration"]["files"] == 2


def active_site(config: dict[str, Any], tmp_path: Path) -> Path:
    (tmp_path / "active").touch()
    folder = tmp_path / "uploads"
    config["uploads"] = {
        "backend": "local",
        "directory": str(folder),
        "user": "root",
        "active_file": str(tmp_path / "active"),
    }
    return folder


def test_uploads_that_are_missing_fail_and_the_rest_is_saved(fake, tmp_path):
    config = fake({"snapshots": [{"out": "[]"}], "backup": [{"out": json.dumps(SUMMARY)}]})
    active_site(config, tmp_path)
    assert not backup.Backup(config, rc.Restic(config)).run([])
    state = json.loads((tmp_path / "restic.json").read_text())
    assert "missing on the active host" in state["runs"]["all"]["problems"]["uploads"]
    assert list(state["parts"]) == ["configuration"]


@pytest.mark.parametrize(("before", "fine"), [('{"type":"file"}\n', False), ('{"type":"dir"}\n', True)])
def test_empty_uploads_fail_when_the_last_backup_had_any(fake, tmp_path, before, fine):
    last = json.dumps([snapshot(1, "2026-01-01T00:00:00Z")])
    empty = json.dumps(SUMMARY | {"total_files_processed": 0})
    config = fake({"snapshots": [{"out": last}], "ls": [{"out": before}], "backup": [{"out": empty}]})
    active_site(config, tmp_path).mkdir()
    assert backup.Backup(config, rc.Restic(config)).run(["uploads"]) is fine


def test_a_spare_host_saves_no_uploads(fake, tmp_path, calls):
    config = fake({"backup": [{"out": json.dumps(SUMMARY)}]})
    active_site(config, tmp_path)
    (tmp_path / "active").unlink()
    assert backup.Backup(config, rc.Restic(config)).run(["uploads"])
    assert calls() == []


def test_no_upload_is_left_out_for_its_name(fake, tmp_path, calls):
    config = fake({"snapshots": [{"out": "[]"}], "backup": [{"out": json.dumps(SUMMARY)}]})
    config["exclude"] = ["*.pyc"]
    folder = active_site(config, tmp_path)
    folder.mkdir()
    (folder / "a.pyc").touch()
    assert backup.Backup(config, rc.Restic(config)).run([])
    uploads, configuration = (call for call in calls() if "backup" in call)
    assert not any(word.startswith("--exclude") for word in uploads)
    assert {"--exclude-caches", "*.pyc"} <= set(configuration)


def test_another_hosts_copy_is_compared_by_size_and_time():
    found = listed(snapshot(1, "2026-01-01T00:00:00Z", "app2"))
    assert backup.parent_words(found, "app2") == ["--parent", found[0]["id"]]
    assert "--ignore-inode" in backup.parent_words(found, "app1")


def test_the_snapshot_to_restore():
    found = listed(snapshot(1, "2026-01-01T00:00:00.123456789Z"), snapshot(2, "2026-01-02T00:00:00+01:00"))
    assert backup.choose(found, "", "", "uploads")["id"].endswith("2")
    assert backup.choose(found, "", "2026-01-01 12:00", "uploads")["id"].endswith("1")
    for snapshot_id, before in (("beef", ""), ("", "2025-01-01"), ("", "yesterday")):
        with pytest.raises(rc.ResticError):
            backup.choose(found, snapshot_id, before, "uploads")
    with pytest.raises(rc.ResticError, match="there is no snapshot of uploads"):
        backup.choose([], "", "", "uploads")


def test_a_disk_that_is_too_small_is_refused(tmp_path):
    with pytest.raises(rc.ResticError, match="nothing was changed"):
        backup.check_room(tmp_path / "new", 10**18)


@pytest.mark.parametrize("target", ["relative", "/"])
def test_a_target_that_is_no_folder_of_its_own_is_refused(fake, target):
    config = fake({})
    options = argparse.Namespace(tag="uploads", host="", target=target, snapshot="", before="", include=[])
    with pytest.raises(rc.ResticError, match="no absolute path"):
        backup.restore(config, rc.Restic(config), options)


@pytest.mark.parametrize("content", [b"bm8gdGFy", b"%%%", b""])
def test_what_is_no_tar_is_not_received(fake, calls, content):
    config = fake({})
    options = argparse.Namespace(tag="inventory", name="inventory.tar", host="")
    with pytest.raises(rc.ResticError, match="nothing was saved"):
        backup.receive(config, rc.Restic(config), options, io.BytesIO(content))
    assert calls() == []


def test_a_lock_is_waited_for_and_dropped_when_it_is_old(fake, monkeypatch, calls):
    monkeypatch.setattr(rc, "LOCK_PAUSE_SECONDS", 0.01)
    lock = json.dumps({"time": "2020-01-01T00:00:00Z", "exclusive": True}, indent=1)
    locked = {"rc": 11, "err": "unable to create lock: repository is already locked exclusively by PID 1 on db"}
    config = fake(
        {
            "list": [{"out": ID + "\n"}],
            "cat": [{"out": lock}],
            "backup": [locked, {"out": json.dumps(SUMMARY)}],
        }
    )
    path = Path(config["repository"], "locks", ID)
    path.touch()
    assert rc.Restic(config).run(["backup"], wait=5).status == 0
    assert not path.exists()
    # It would take the lock of a live process for nobody's.
    assert not any("unlock" in call for call in calls())


def test_a_lock_that_is_held_stays(fake):
    config = fake({"list": [{"out": ID}], "cat": [{"out": json.dumps({"time": rc.now()})}]})
    Path(config["repository"], "locks", ID).touch()
    assert rc.Restic(config).drop_stale_locks() == []
    assert Path(config["repository"], "locks", ID).exists()


def test_a_run_that_left_nothing_is_told(fake, monkeypatch):
    config = fake({})
    monkeypatch.setattr(backup, "unit_running", lambda names: False)
    answer = backup.follow(config, "2026-01-01T00:00:00Z", 0, "unit")
    assert (answer["running"], answer["ok"]) == (False, False)
    assert "left no result" in answer["problems"]["run"]


def test_settings_that_cannot_be_read_are_one_line(tmp_path, capsys):
    assert backup.main(["--config", str(tmp_path / "none"), "list"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_newest_of_each_host_and_kind(fake, tmp_path, capsys):
    there = [
        snapshot(3, "2026-01-03T00:00:00Z"),
        snapshot(1, "2026-01-01T00:00:00Z"),
        snapshot(2, "2026-01-02T00:00:00Z", host="db1", tag="configuration"),
        snapshot(4, "2026-01-02T12:00:00Z", tag="configuration"),
    ]
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(fake({"snapshots": [{"out": json.dumps(there)}]})))
    assert backup.main(["--config", str(path), "list", "--json", "--newest"]) == 0
    found = [int(item["id"], 16) for item in json.loads(capsys.readouterr().out)]
    assert found == [2, 4, 3]
