"""The drill: green on a site on which all is well, red for each thing that is not."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.unit.app.paths import ROOT
from tests.unit.restore_drill.conftest import World, digest, drill, outcome, peers, red, report, state, steps, words


def test_all_is_well(world: World) -> None:
    entry = world.drill()
    assert entry["ok"], entry["error"]
    assert entry["error"] == ""
    assert set(outcome(entry)) == set(steps.STEPS)
    assert all(outcome(entry).values())
    assert entry["bytes"] == 30_000_000
    assert entry["seconds_per_gigabyte"] == pytest.approx(entry["restore_seconds"] / 0.03, rel=0.01)
    # Nothing is left.
    assert list(Path(world.config["directory"]).iterdir()) == []


def test_the_latest_is_chosen_of_this_cluster_and_restored_as_the_programs_want_it(world: World) -> None:
    world.drill()
    (choose,) = world.calls("backup")
    assert choose[:-1] == ["choose", "--to", "latest", "--version", "15", "--system-id", "77", "--json"]
    calls = {call[0]: call[1:-1] for call in world.calls("restore")}
    data = str(Path(world.config["directory"], "data"))
    assert calls["fetch"][:6] == ["--directory", data, "--repo", "1", "--set", "20260101-000000F"]
    recover = calls["recover"]
    assert recover[:6] == ["--directory", data, "--to", "latest", "--repo", "1"]
    assert [recover[place + 1] for place, word in enumerate(recover) if word == "--allow"] == world.config["allow"]
    assert {"--tls", "--keep-running", "--listen", "192.0.2.31"} <= set(recover)


# ---- what must be red ------------------------------------------------------------------------------------------------


def test_a_corrupted_file_in_the_repository(world: World) -> None:
    world.data["fetch_error"] = "pgbackrest: error restoring 'base/5/1259': checksum does not match"
    entry = world.drill()
    assert "checksum" in red(entry, "fetch")
    assert outcome(entry)["recover"] is None
    assert outcome(entry)["uploads"], "they come from elsewhere"
    assert outcome(entry)["remove"]


def test_a_page_that_was_corrupted_before_the_backup(world: World) -> None:
    world.data["amcheck_error"] = 'heap table "zulip.zulip.zerver_message", block 1, offset 2:\n    xmin is wrong'
    said = red(world.drill(), "amcheck")
    assert "zerver_message" in said
    assert "xmin is wrong" in said


@pytest.mark.parametrize("step", ["choose", "recover"])
def test_a_missing_wal_segment(world: World, step: str) -> None:
    world.data[f"{step}_error"] = "repository 1: WAL segment 000000010000000000000005 is missing"
    assert "000000010000000000000005 is missing" in red(world.drill(), step)


def test_a_replay_that_ends_before_what_is_archived(world: World) -> None:
    world.data["recovered"]["last_lsn"] = "0/5FFFFFF"
    assert "2 segments before 000000010000000000000007" in red(world.drill(), "end")


def test_a_replay_that_ends_before_what_was_archived_meanwhile(world: World) -> None:
    world.data["recovered"]["newest_segment"] = "000000010000000000000009"
    assert "000000010000000000000009" in red(world.drill(), "end")


def test_a_wrong_key(world: World) -> None:
    world.data["choose_error"] = "repository 1 (here) does not open with this key (vault_pgbackrest_cipher_pass)"
    entry = world.drill()
    # The priority that the program gave its line for the journal is not part of it.
    assert red(entry, "choose").startswith("choose: repository 1 (here) does not open with this key")


def test_a_wrong_key_of_the_uploads(world: World) -> None:
    world.data["restic_error"] = "the repository does not open with vault_restic_password"
    assert "vault_restic_password" in red(world.drill(), "uploads")


def test_an_empty_repository(world: World) -> None:
    world.data["choose_error"] = "repository 1 (here) has no backup"
    assert "has no backup" in red(world.drill(), "choose")


def test_an_empty_database(world: World) -> None:
    world.data["restored"] = {"zerver_message": [None, 0], "zerver_realm": [None, 0], "fts_update_log": [None, 0]}
    world.data["live"]["zerver_message"] = 101
    assert "zerver_message has 0 rows, the live one at least 101" in red(world.drill(), "counts")


def test_no_tables_at_all(world: World) -> None:
    world.data["restored"] = {}
    assert "zerver_message is missing" in red(world.drill(), "counts")
    world.data["live"] = {}
    assert "no table" in red(world.drill(), "counts")


def test_no_snapshot_of_uploads(world: World) -> None:
    world.data["snapshots"] = []
    assert "no snapshot" in red(world.drill(), "uploads")


def test_a_stale_backup(world: World) -> None:
    world.data["chosen"]["stop"] = words.iso(world.now - 31 * 3600)
    assert "31.0 h old; 30.0 h are allowed" in red(world.drill(), "choose")
    world.config["backup_max_age"] = 32
    assert world.drill()["ok"]


def test_a_stale_archive(world: World) -> None:
    world.data["recovered"]["last_time"] = words.iso(world.now - 1000)
    world.data["canary"] = world.now - 1010
    assert "17 min ago; 15 min are allowed" in red(world.drill(), "end")


def test_a_backup_that_nobody_has_written_since(world: World) -> None:
    world.data["recovered"]["last_time"] = ""
    world.data["chosen"]["stop"] = words.iso(world.now - 40)
    world.data["canary"] = world.now - 60
    assert world.drill()["ok"]
    world.data["chosen"]["stop"] = words.iso(world.now - 1000)
    assert "17 min ago; 15 min are allowed" in red(world.drill(), "end")


def test_a_stale_canary(world: World) -> None:
    world.data["canary"] = world.now - 60 - 121
    assert "older than the end" in red(world.drill(), "canary")
    world.data["canary"] = ""
    assert "has no row" in red(world.drill(), "canary")


def test_a_stale_snapshot_of_uploads(world: World) -> None:
    world.data["snapshots"][-1]["time"] = words.iso(world.now - 7 * 3600)
    world.data["snapshots"].pop(0)
    assert "7.0 h old" in red(world.drill(), "uploads")


def test_rows_that_are_missing(world: World) -> None:
    world.data["live"]["zerver_message"] = 2000
    assert "zerver_message has 1003 rows, the live one 2000" in red(world.drill(), "counts")


def test_a_live_database_that_does_not_answer(world: World) -> None:
    world.data["live_error"] = 'connection to server at "192.0.2.21" failed'
    said = red(world.drill(), "counts")
    assert "the live database: psql: error: connection to server" in said
    # It was restored all the same, of whichever cluster.
    assert "--system-id" not in world.calls("backup")[0]


def test_an_application_that_reads_another_database(world: World) -> None:
    world.data["sessions"] = 0
    assert "did not read from the scratch instance" in red(world.drill(), "message")


def test_an_application_that_reads_something_else(world: World) -> None:
    world.data["message"]["sha256"] = "cd" * 32
    assert "another content of message 1200" in red(world.drill(), "message")


def test_an_application_that_reads_nothing(world: World) -> None:
    world.data["message"] = {"messages": 0, "id": None, "sha256": None}
    assert "app2 read no message; 1003 were restored" in red(world.drill(), "message")
    world.data["messages"] = 0
    assert world.drill()["ok"], "a site that is new has none"


def test_app_hosts_that_do_not_answer(world: World) -> None:
    world.data["ssh_error"] = "ssh: connect to host 192.0.2.12 port 22: Connection refused"
    entry = world.drill()
    assert "Connection refused" in red(entry, "message")
    assert outcome(entry)["uploads"] is False


def test_uploads_with_other_bytes(world: World) -> None:
    world.config["uploads"]["sample"] = 30
    world.data["files"]["files/2/ab/3.txt"] = "rotten"
    assert "files/2/ab/3.txt" in red(world.drill(), "uploads")


def test_attachments_that_the_snapshot_lacks(world: World) -> None:
    del world.data["files"]["files/2/ab/29.txt"]
    said = red(world.drill(), "uploads")
    assert "1 attachments are not in the snapshot" in said
    assert "files/2/ab/29.txt" in said
    # One that is nowhere else is no fault of the backup.
    del world.data["uploads"]["files/2/ab/29.txt"]
    assert world.drill()["ok"]


def test_uploads_that_cannot_be_read(world: World) -> None:
    world.data["restore_error"] = "ciphertext verification failed"
    assert "ciphertext verification failed" in red(world.drill(), "uploads")


def test_no_room(world: World) -> None:
    world.data["chosen"]["database_bytes"] = 1 << 60
    entry = world.drill()
    assert "free; the drill needs" in red(entry, "space")
    assert outcome(entry)["fetch"] is None
    assert not [call for call in world.calls("restore") if call[0] == "fetch"]


def test_what_cannot_be_removed(world: World) -> None:
    assert world.drill()["ok"]
    world.data["remove_error"] = "is in use"
    entry = world.drill()
    assert not entry["ok"]
    assert "is in use" in entry["error"]


def test_answers_that_nobody_expects_are_told_in_one_line(world: World) -> None:
    del world.data["chosen"]["newest_wal"]
    assert "unexpected answer" in red(world.drill(), "choose")
    world.config["programs"]["backup"] = "/nonexistent/program"
    assert "/nonexistent/program: No such file" in red(world.drill(), "choose")


# ---- what is no fault ------------------------------------------------------------------------------------------------


def test_the_spare_is_asked_first(world: World) -> None:
    entry = world.drill()
    went = {step["name"]: step for step in entry["steps"]}
    assert went["message"]["detail"].startswith("app2 read message 1200 of 1003")
    assert "app2" in went["uploads"]["detail"]
    world.config["app_hosts"].pop()
    entry = world.drill()
    assert entry["ok"], entry["error"]
    assert "app1 read message" in entry["steps"][steps.STEPS.index("message")]["detail"]


def test_a_file_that_one_host_lacks_is_looked_for_on_the_next(world: World) -> None:
    hosts = peers.Peers(world.config)
    answers = {"192.0.2.11": {"a": {"sha256": "1"}, "b": {"sha256": "2"}}, "192.0.2.12": {"a": None, "b": None}}

    def ask(host: Any, request: str, stdin: str = "") -> Any:
        if request.endswith("spare") and host["name"] == "app1":
            raise words.DrillError("this host is active")
        return {name: answers[host["address"]][name] for name in json.loads(stdin)}

    hosts.ask = ask
    who, found = hosts.hashes(["a", "b"])
    assert who == "app2 and app1"
    assert found["a"] == {"sha256": "1"}


def test_uploads_that_were_changed_or_removed_since(world: World) -> None:
    world.config["uploads"]["sample"] = 30
    del world.data["uploads"]["files/2/ab/4.txt"]
    world.data["uploads"]["files/2/ab/5.txt"] = {"sha256": digest("new"), "size": 3, "modified": world.now}
    entry = world.drill()
    assert entry["ok"], entry["error"]
    assert "28 of 30" in entry["steps"][steps.STEPS.index("uploads")]["detail"]
    world.data["uploads"] = {}
    assert "none of 30 restored uploads" in red(world.drill(), "uploads")


def test_names_are_no_patterns(world: World) -> None:
    world.data["files"] = {"files/2/ab/[a]*\\?.txt": "x"}
    world.data["attachments"] = []
    world.data["uploads"] = {}
    assert world.drill()["ok"]


def test_a_site_without_uploads(world: World) -> None:
    world.data |= {"files": {}, "attachments": []}
    assert world.drill()["ok"]


def test_uploads_in_s3(world: World) -> None:
    world.config["uploads"]["backend"] = "s3"
    objects = [{"key": "2/ab/1.txt", "size": 1}, {"key": "2/ab/29.txt", "size": 1}]
    world.data["files"] = {"uploads.json": json.dumps(objects), "avatars.json": "[]"}
    entry = world.drill()
    assert entry["ok"], entry["error"]
    world.data["files"]["uploads.json"] = json.dumps(objects[:1])
    assert "2/ab/29.txt" in red(world.drill(), "uploads")
    world.data["files"] = {}
    assert "no list of objects" in red(world.drill(), "uploads")


def test_tables_that_an_upgrade_made_meanwhile(world: World) -> None:
    one = steps.Drill(world.config)
    (world.bin / "world.json").write_text(json.dumps(world.data))
    one.choose()
    world.data["live"]["zerver_new"] = 5
    (world.bin / "world.json").write_text(json.dumps(world.data))
    assert "3 tables" in one.counts().detail


# ---- what is left ----------------------------------------------------------------------------------------------------


def test_it_is_kept_when_asked_for_and_the_next_takes_it_away(world: World) -> None:
    data = Path(world.config["directory"], "data")
    assert world.drill(keep=True)["ok"]
    assert data.exists()
    assert world.drill()["ok"]
    assert not data.exists()
    verbs = [call[0] for call in world.calls("restore")]
    assert verbs[:5] == ["remove", "fetch", "recover", "stop", "remove"]


def test_a_mark_keeps_one_drill(world: World) -> None:
    mark = Path(world.config["keep_mark"])
    mark.parent.mkdir()
    mark.touch()
    assert drill.kept(world.config)
    assert not drill.kept(world.config)


def test_a_link_in_the_scratch_directory_is_not_followed(world: World, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    Path(world.config["directory"], "uploads").symlink_to(precious)
    entry = world.drill()
    assert "is a link" in entry["error"]
    assert (precious / "file").exists()


def test_the_state_keeps_the_last_thirty_and_anybody_reads_it(world: World) -> None:
    path = Path(world.config["state"])
    known: dict[str, Any] = {"runs": []}
    for number in range(40):
        known = state.remember(known, {"began": str(number), "ended": str(number), "ok": number != 39})
    assert len(known["runs"]) == 30
    assert (known["last_run"], known["last_success"]) == ("39", "38")
    world.drill()
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert world.state["last_success"] == world.state["runs"][-1]["ended"]


def test_one_that_was_killed_is_known_as_such(world: World) -> None:
    running = {"began": "2026-01-01T00:00:00Z", "ended": None, "ok": False, "error": "", "steps": []}
    path = Path(world.config["state"])
    state.replace_file(path, json.dumps(state.remember(state.read_state(path), running)))
    world.drill()
    assert [(run["ok"], run["error"]) for run in world.state["runs"]] == [(False, "killed"), (True, "")]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"runs": 3}'])
def test_a_broken_state_is_begun_anew(world: World, text: str) -> None:
    path = Path(world.config["state"])
    path.parent.mkdir()
    path.write_text(text)
    world.drill()
    assert len(world.state["runs"]) == 1


def test_metrics(world: World) -> None:
    world.drill()
    good = world.state["last_success"]
    world.data["canary"] = 0
    world.drill()
    text = Path(world.config["textfile_directory"], "zulip_ha_restore_drill.prom").read_text()
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    name = "zulip_ha_restore_drill_"
    assert float(values[f"{name}last_success_timestamp_seconds"]) == words.timestamp(good)
    assert float(values[f"{name}last_run_timestamp_seconds"]) >= words.timestamp(good)
    assert values[f"{name}ok"] == "0"
    assert float(values[f"{name}bytes"]) == 30_000_000
    assert float(values[f"{name}seconds_per_gigabyte"]) == world.state["runs"][0]["seconds_per_gigabyte"]
    assert values[f'{name}check_ok{{check="canary"}}'] == "0"
    assert values[f'{name}check_ok{{check="counts"}}'] == "1"
    assert f'{name}check_seconds{{check="fetch"}}' in values
    helped = [line.split()[2] for line in text.splitlines() if line.startswith("# HELP")]
    assert sorted(helped) == sorted({line.split("{")[0] for line in values})


def test_metrics_of_a_site_whose_drills_never_worked() -> None:
    text = report.metrics({"runs": [{"began": "x", "ended": None, "ok": False}]})
    assert "zulip_ha_restore_drill_last_success_timestamp_seconds 0\n" in text
    assert "zulip_ha_restore_drill_ok 0\n" in text


def test_the_table_says_it_all(world: World) -> None:
    world.data["canary"] = 0
    lines = report.table(world.drill())
    assert [line.split()[1] for line in lines[1:12]] == ["ok"] * 5 + ["BAD"] + ["ok"] * 5
    assert lines[-2].startswith("restored 30.0 MB in")
    assert "RED: canary" in lines[-1]


# ---- the program -----------------------------------------------------------------------------------------------------


def command(world: World, *words: str) -> list[str]:
    path = world.folder / "drill.json"
    path.write_text(json.dumps(world.config))
    (world.bin / "world.json").write_text(json.dumps(world.data))
    program = str(ROOT / "roles/restore_drill/files/restore_drill")
    return [sys.executable, "-B", program, "--config", str(path), *words]


def start(world: World, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "JOURNAL_STREAM": "1:2"}
    return subprocess.run(command(world, *words), capture_output=True, text=True, env=environment, check=False)


def test_the_program(site: World) -> None:
    done = start(site, "show")
    assert (done.returncode, done.stderr) == (1, "<3>restore drill: there was no drill yet\n")
    done = start(site, "run")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1].startswith("<6>restore drill: all is well: 30.0 MB restored in")
    site.data["canary"] = 0
    done = start(site, "run")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("<3>restore drill: RED: canary:")
    assert "RED: canary" in start(site, "show").stdout
    assert json.loads(start(site, "show", "--json").stdout)["ok"] is False


def test_a_missing_configuration_is_one_line() -> None:
    program = str(ROOT / "roles/restore_drill/files/restore_drill")
    words = [sys.executable, "-B", program, "--config", "/nonexistent", "run"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_never_two_at_once(site: World) -> None:
    lock = Path(site.config["lock"])
    with drill.alone(lock):
        done = start(site, "run")
    assert done.returncode == 1
    assert "another drill is under way" in done.stderr
    assert not Path(site.config["state"]).exists()


def test_one_that_is_stopped_removes_what_it_made_and_is_red(site: World) -> None:
    slow = site.bin / "pg_amcheck"
    slow.write_text("#!/bin/sh\nsleep 60\n")
    process = subprocess.Popen(command(site, "run"), stderr=subprocess.PIPE, text=True)
    timer = threading.Timer(30, process.kill)
    timer.start()
    assert process.stderr
    for line in process.stderr:
        if "canary: " in line:
            # The next step has begun.
            time.sleep(0.3)
            process.send_signal(signal.SIGTERM)
            break
    said = process.stderr.read()
    assert process.wait(30) == 1
    timer.cancel()
    assert "stopped by SIGTERM" in said
    assert not Path(site.config["directory"], "data").exists()
    assert not site.state["runs"][-1]["ok"]
    assert "stopped by SIGTERM" in site.state["runs"][-1]["error"]
