"""What the log of errors gained: the programs on the host, entries, and secrets."""

from __future__ import annotations

import base64
import os
import pwd
import subprocess
from pathlib import Path

import pytest
import yaml

from plugin_utils.report import errors

TASKS = Path(__file__).resolve().parents[3] / "playbooks/tasks"
ME = pwd.getpwuid(os.geteuid()).pw_name
STAMP = "2026-11-23 21:00:00,123"


def program(name, task, variable):
    """The shell program of a task, as it is run on a host; runuser is told apart from this user only by root."""
    tasks = yaml.safe_load((TASKS / name).read_text())
    tasks = tasks[0].get("block", tasks)
    return tasks[task]["vars"][variable]


@pytest.fixture
def host(tmp_path):
    """A folder of programs that stand for those of root."""
    folder = tmp_path / "bin"
    folder.mkdir()
    stubs = {
        "runuser": '#!/bin/sh\necho "$2" >> "$STUBS/users"\nshift 3\nexec "$@"\n',
        "logger": '#!/bin/sh\nprintf "%s\\n" "$*" >> "$STUBS/journal"\n',
    }
    for name, text in stubs.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)

    def run(text, *arguments):
        environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "STUBS": str(folder)}
        return subprocess.run(
            ["/bin/sh", "-c", text, "sh", *map(str, arguments)],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    return run


@pytest.fixture
def watch(host, tmp_path):
    """Note where a log ends, let something happen, and return what is new."""
    log = tmp_path / "errors.log"

    def run(happen, *others):
        marks = host(program("errors_before.yml", 0, "errors_program"), log, *others)
        happen(log)
        out = host(program("errors_after.yml", 0, "errors_program"), *errors.log_arguments(marks))
        return errors.errors_found(out).get(str(log), {})

    return run


def add(text):
    def happen(log):
        with log.open("a") as handle:
            handle.write(text)

    return happen


def texts(found):
    return [group["text"] for group in found.get("groups", [])]


def test_only_what_is_new_counts(watch, tmp_path):
    (tmp_path / "errors.log").write_text(f"{STAMP} ERROR [a:1] old\n")
    found = watch(add(f"{STAMP} ERROR [a:1] new\n"))
    assert (texts(found), found["entries"], found["cut"]) == (["ERROR [a:] new"], 1, False)


def test_nothing_new_is_nothing(watch, tmp_path):
    (tmp_path / "errors.log").write_text("x\n")
    assert watch(lambda log: None) == {}


def test_a_log_that_was_not_there(watch, tmp_path):
    assert texts(watch(add("boom\n"), tmp_path / "never/there.log")) == ["boom"]
    (tmp_path / "errors.log").unlink()
    assert watch(lambda log: None) == {}


def test_a_log_that_was_rotated_meanwhile(watch, tmp_path):
    (tmp_path / "errors.log").write_text("old\n")

    def rotate(log):
        add(f"{STAMP} before\n")(log)
        log.rename(f"{log}.1")
        log.write_text(f"{STAMP} after\n")

    assert texts(watch(rotate)) == ["before", "after"]


def test_a_log_that_was_emptied(watch, tmp_path):
    (tmp_path / "errors.log").write_text("old old old\n")
    assert texts(watch(lambda log: log.write_text("new\n"))) == ["new"]


def test_a_long_log_is_cut(watch):
    found = watch(add(f"{STAMP} again\n" * 5000))
    assert (found["cut"], found["bytes"]) == (True, 5000 * (len(STAMP) + 7))
    assert 65536 // 40 < found["entries"] < 5000


def test_bytes_that_are_no_text(watch):
    found = watch(lambda log: log.write_bytes(b"\xff\xfe\x00 boom\n"))
    assert "boom" in texts(found)[0]


def test_logs_are_read_as_who_owns_their_folder(watch, tmp_path):
    watch(add("x\n"))
    assert (tmp_path / "bin/users").read_text() == f"{ME}\n"


def test_the_line_in_the_logs_of_a_host(host, tmp_path):
    text = program("log.yml", 0, "log_program").replace("/var/log", str(tmp_path)).replace("--group adm", "")
    for line in ("one", "two 'quoted' $HOME"):
        host(text, line)
    assert (tmp_path / "zulip/upgrade.log").read_text() == "one\ntwo 'quoted' $HOME\n"
    assert oct((tmp_path / "zulip/upgrade.log").stat().st_mode & 0o777) == "0o640"
    assert (tmp_path / "bin/journal").read_text().startswith("--tag zulip-upgrade --size 32KiB -- one\n")
    assert (tmp_path / "bin/users").read_text() == f"{ME}\n{ME}\n"


TRACEBACK = f"""{STAMP} ERROR [django.request:99] Internal Server Error: /json/messages
Traceback (most recent call last):
  File "x.py", line 1, in y
ValueError: bad thing
"""


def test_tracebacks_are_grouped_by_the_error_and_numbers_do_not_count():
    groups = errors.grouped(TRACEBACK + TRACEBACK.replace(":99]", ":98]") + f"{STAMP} WARNING [q:1] user 7\n" * 3)
    assert groups == [
        {"count": 3, "text": "WARNING [q:] user 7"},
        {"count": 2, "text": "ERROR [django.request:] Internal Server Error: /json/messages | ValueError: bad thing"},
    ]
    assert len(errors.grouped(TRACEBACK + TRACEBACK.replace("bad thing", "other"))) == 2


def test_lines_without_a_time_belong_to_the_entry_before_them():
    assert errors.log_entries(f"rest\n\n{STAMP} a\n  more\n{STAMP} b\n") == [
        ["rest"],
        [f"{STAMP} a", "  more"],
        [f"{STAMP} b"],
    ]


def test_many_kinds_are_few_lines():
    groups = errors.grouped("".join(f"{STAMP} kind {chr(65 + i // 26)}{chr(65 + i % 26)}\n" for i in range(70)))
    assert len(groups) == errors.GROUPS + 1
    assert groups[-1] == {"count": 20, "text": "others"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("dsn postgres://zulip:pw@db1/x", "dsn postgres://***@db1/x"),
        ("password=hunter2 host=db1", "password=*** host=db1"),
        ("{'api_key': 'abc def', 'x': 1}", "{'api_key': ***, 'x': 1}"),
        ("Authorization: Bearer abc.def", "Authorization: ***"),
        ("my-long-secret-value", "***"),
        ("first line of the key\nshort", "***\nshort"),
        ("-----BEGIN KEY-----", "-----BEGIN KEY-----"),
        ("no such user 7", "no such user 7"),
    ],
)
def test_secrets(text, shown):
    secrets = ["my-long-secret-value", {"a": ["-----BEGIN KEY-----\nfirst line of the key\nshort"]}, None, ""]
    assert errors.without_secrets(text, secrets) == shown


def test_what_was_found_is_masked_before_it_is_cut():
    raw = f"{STAMP} " + "x" * (errors.TEXT - 10) + " my-long-secret-value"
    out = f"{len(raw)} /l {base64.b64encode(raw.encode()).decode()}\n"
    assert "my-long" not in str(errors.errors_found(out, ["my-long-secret-value"]))
