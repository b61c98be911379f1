"""The whole program and its check, with real clients, against a server that can be told to misbehave."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.load import __main__ as load
from tests.load import check, clients, mark
from tests.load.history import History, read

FAST = ["--rate", "60", "--write-rate", "20", "--upload-rate", "4", "--queries", "2", "--drain", "5"]
ROOT = Path(load.__file__).resolve().parents[2]


@pytest.fixture
def ran(zulip_server, state, tmp_path, monkeypatch, capsys):
    """Runs the load for a second, then the check; returns (exit status, what the check printed, its JSON)."""
    # pytest needs its own handlers.
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(clients, "PAUSE", 0.05)
    history = tmp_path / "history.jsonl"
    end = load.Load.end

    def end_when_enough_was_sent(running: load.Load) -> None:
        # A busy machine does less in the same time, and what is tested happens to the tenth message.
        deadline = time.monotonic() + 30
        while zulip_server[0].sent < 12 and time.monotonic() < deadline:
            time.sleep(0.05)
        end(running)

    monkeypatch.setattr(load.Load, "end", end_when_enough_was_sent)

    def run(*limits: str, load_options: Sequence[str] = ()) -> tuple[int, str, dict[str, Any]]:
        common = ["--state", str(state)]
        assert load.main([*common, "--out", str(history), "--seconds", "0.7", *FAST, *load_options]) == 0
        capsys.readouterr()
        outputs = [f"--{kind}={tmp_path / kind}" for kind in ("json", "markdown", "picture")]
        limits = ("--min-requests=12", "--min-rate=0", *limits)
        status = check.main([str(history), *common, *outputs, *limits])
        return status, capsys.readouterr().out, json.loads((tmp_path / "json").read_text())

    return run


def test_a_healthy_server_passes(zulip_server, ran, tmp_path):
    status, printed, measures = ran()
    assert status == 0, printed
    assert measures["uploads"] >= 2
    assert set(measures["readers"]) == {"reader1", "reader2"}
    assert measures["messages"]["acknowledged"] == zulip_server[0].sent > 8
    assert "passed" in (tmp_path / "markdown").read_text()
    assert (tmp_path / "picture").read_text().startswith("<svg")
    assert not zulip_server[0].queues or zulip_server[0].registrations == 2


@pytest.mark.parametrize(
    ("fate", "expected"),
    [
        ("forget", "1 acknowledged messages are lost"),
        ("twice", "1 messages are stored twice"),
        ("unseen", "1 acknowledged messages never came"),
        ("hang up", "1 requests failed, 0 may; 1 of them: send: ConnectionError"),
    ],
)
def test_what_happens_to_one_message(zulip_server, ran, fate: str, expected: str):
    zulip_server[0].fates[7] = fate
    status, printed, _ = ran()
    assert status == 1
    assert expected in printed


@pytest.mark.parametrize(
    ("place", "fault", "expected"),
    [
        ("GET users/me", (502, "<html>"), "1 of them: read: 502 without JSON"),
        ("GET events", (502, "<html>"), "1 of them: poll: 502 without JSON"),
        ("GET events", (200, '{"result": "success"}'), "1 of them: poll: success without 'events'"),
        ("POST messages", (200, '{"result": "success"}'), "1 of them: send: success without 'id'"),
        ("POST user_uploads", (500, "{}"), "1 of them: upload: 500"),
        ("POST register", (503, "<html>"), "1 of them: register: 503 without JSON"),
        ("GET users", (429, '{"result": "error", "code": "RATE_LIMIT_HIT"}'), "1 requests hit the server's rate limit"),
    ],
)
def test_one_bad_answer(zulip_server, ran, place: str, fault: Any, expected: str):
    zulip_server[0].faults[place].append(fault)
    status, printed, _ = ran()
    assert status == 1
    assert expected in printed


def test_lost_queues_are_registered_anew_and_what_was_missed_is_read(zulip_server, ran, monkeypatch):
    fake = zulip_server[0]
    send = fake._send

    def send_and_drop(given: dict[str, str]) -> Any:
        if fake.sent == 9:
            # The tenth message is stored while nobody has a queue.
            fake.drop_queues()
        return send(given)

    monkeypatch.setattr(fake, "_send", send_and_drop)
    status, printed, measures = ran()
    assert status == 0, printed
    assert measures["reregistered"] == 2
    assert fake.registrations == 4
    assert not any(reader["undelivered"] for reader in measures["readers"].values())


MORE = ["--visitors", "1", "--planners", "1", "--links", "2"]


def test_visits_plans_and_jobs_are_seen(zulip_server, ran, monkeypatch, tmp_path):
    monkeypatch.setattr(load, "PLAN_SECONDS", 0.2)
    monkeypatch.setattr(load, "VISIT_SECONDS", 0.2)
    status, printed, measures = ran(load_options=MORE)
    assert status == 0, printed
    assert measures["plans"]["acknowledged"] >= 2
    assert measures["jobs"]["caused"] >= 2
    lines = read(tmp_path / "history.jsonl")
    assert sum(line["kind"] == "visit" and line["outcome"] == "ok" for line in lines) >= 2
    assert any(line.get("role") == 400 for line in lines)


@pytest.mark.parametrize(
    ("place", "fault", "expected"),
    [
        ("POST register", (503, "<html>"), "visit: 503 without JSON"),
        ("POST scheduled_messages", (503, "<html>"), "schedule: 503 without JSON"),
    ],
)
def test_a_failed_visit_or_plan(zulip_server, ran, monkeypatch, place: str, fault: Any, expected: str):
    monkeypatch.setattr(load, "PLAN_SECONDS", 0.2)
    monkeypatch.setattr(load, "VISIT_SECONDS", 0.2)
    # The readers register before the visitor does.
    zulip_server[0].faults[place] += [None, None] * (place == "POST register") + [fault]
    status, printed, _ = ran(load_options=MORE)
    assert status == 1
    assert expected in printed


def test_a_message_that_never_comes_to_a_visitor(zulip_server, ran, monkeypatch):
    monkeypatch.setattr(load, "VISIT_SECONDS", 0.2)
    monkeypatch.setattr(clients.Visitor, "patience", 0.3)
    zulip_server[0].fates.update(dict.fromkeys(range(1, 100), "unseen"))
    status, _, measures = ran(load_options=MORE)
    assert status == 1
    assert measures["failed_by_kind"]["visit"] >= 1


def test_jobs_that_no_worker_does_are_waited_for_and_then_missed(zulip_server, ran):
    zulip_server[0].fates.update(dict.fromkeys(range(1, 100), "idle"))
    begun = time.monotonic()
    status, printed, _ = ran("--patience=1.5", load_options=MORE)
    assert status == 1
    assert "jobs were never done" in printed
    assert time.monotonic() - begun > 2


def test_a_message_that_was_committed_late_is_not_missed_after_a_lost_queue(zulip_server, ran, monkeypatch):
    fake = zulip_server[0]
    send = fake._send

    def send_out_of_order(given: dict[str, str]) -> Any:
        answer = send(given)
        if fake.sent == 9:
            # Its number is older than the newest one that readers have seen, and nobody has a queue when it comes.
            fake.messages[-1]["id"] = answer["id"] = answer["id"] - 15
            for queue in fake.queues.values():
                queue.pop()
            fake.drop_queues()
        return answer

    monkeypatch.setattr(fake, "_send", send_out_of_order)
    _, printed, measures = ran()
    assert not any(reader["undelivered"] for reader in measures["readers"].values()), printed


def test_a_changed_upload_is_found_after_the_run(zulip_server, ran, monkeypatch):
    fake = zulip_server[0]

    def spoil(*arguments: Any) -> Any:
        fake.files["/user_uploads/0"] = b"other"
        return read(*arguments)

    monkeypatch.setattr(check, "read", spoil)
    status, printed, _ = ran()
    assert status == 1
    assert "1 acknowledged uploads are lost or changed: /user_uploads/0" in printed


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--readers", "0"], "nothing is tested"),
        (["--rate", "5"], "leaves nothing for the queries"),
        (["--queries", "0"], "are left for --queries 0"),
        (["--state", "/nowhere"], "No such file"),
    ],
)
def test_bad_input_is_refused_in_one_line(state, tmp_path, capsys, monkeypatch, more: list[str], expected: str):
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert load.main(["--state", str(state), "--out", str(tmp_path / "h"), "--seconds", "1", *more]) == 2
    printed = capsys.readouterr().err
    assert expected in printed
    assert printed.count("\n") == 1
    assert not (tmp_path / "h").exists()


def test_a_rate_limit_that_would_end_the_run_is_refused_before_it(zulip_server, state, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    zulip_server[0].limit = "200"
    assert load.main(["--state", str(state), "--out", str(tmp_path / "h"), "--seconds", "1"]) == 2
    assert "the server allows 200: raise api_by_user" in capsys.readouterr().err


def test_a_history_is_never_written_over(state, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    out = tmp_path / "h"
    out.write_text("kept")
    assert load.main(["--state", str(state), "--out", str(out), "--seconds", "1"]) == 2
    assert out.read_text() == "kept"


def test_needs_add_up_to_the_rate():
    options = load.parse(["--out", "x"])
    needed = [load.needs(user, 3, options) for user in range(3)]
    assert sum(requests for requests, _ in needed) == pytest.approx(25 * 60, abs=2)
    assert [polls for _, polls in needed] == [300, 300, 0]


def test_sigterm_ends_a_run_in_order_and_marks_from_outside_are_in_it(state, tmp_path):
    out = tmp_path / "history.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.load", "--state", str(state), "--out", str(out), *FAST],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert "at 60 requests/s, 2 readers" in process.stdout.readline()
    assert mark.main([str(out), "kill", "node=db1"]) == 0
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    assert "ended" in process.communicate(timeout=20)[0]
    assert process.returncode == 0
    names = {line["name"]: line["data"] for line in read(out) if line["kind"] == "mark"}
    assert names["kill"] == {"node": "db1"}
    assert names["reader ends"]["complete"]
    assert "history ends" in names
    assert check.main([str(out), "--state", str(state), "--min-requests=1", "--min-rate=0"]) == 0


def test_the_check_cannot_tell_without_history_or_server(state, tmp_path, capsys):
    out = tmp_path / "h"
    assert check.main([str(out), "--state", str(state)]) == 2
    out.write_text("{}\n")
    assert check.main([str(out), "--state", str(state)]) == 2
    assert "line 1 is no line of a history" in capsys.readouterr().err
    out.write_text("")
    assert check.main([str(out), "--state", str(state)]) == 2
    assert "the load never began" in capsys.readouterr().err


def test_the_last_line_of_a_killed_writer_is_left_out(tmp_path):
    path = tmp_path / "h"
    history = History(path, new=True)
    history.mark("one")
    os.write(history._file, b'{"kind":"ma')
    history.close()
    assert [line["name"] for line in read(path)] == ["one"]


def test_marks_need_a_history_and_pairs(tmp_path, capsys):
    assert mark.main([str(tmp_path / "none"), "x"]) == 2
    (tmp_path / "h").write_text("")
    assert mark.main([str(tmp_path / "h"), "x", "no pair"]) == 2
    assert mark.main([str(tmp_path / "h"), "x", "name=app1"]) == 0
    assert read(tmp_path / "h")[0]["data"] == {"name": "app1"}
