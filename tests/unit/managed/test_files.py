"""What managed_files does on a host, on a scratch directory."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path

import pytest


class Killed(BaseException):
    """A run that dies on the spot: nothing may catch it."""


def kill_at(number: int, *, after: bool):
    """A writer of files that dies at its number-th file, before or after writing it."""
    from ansible.module_utils.managed_plan import carry_out

    seen = []

    def carry(step):
        seen.append(step)
        if len(seen) == number and not after:
            raise Killed
        carry_out(step)
        if len(seen) == number:
            raise Killed

    return carry


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# ---- the ordinary life of a file -------------------------------------------------------------------------------------


def test_creates_then_leaves_alone(site):
    first = site.run(site.wish("sub/a.conf", "one\n", mode="0640"))
    path = site.etc / "sub/a.conf"
    assert first["changed"]
    assert first["files"] == {str(path): "created"}
    assert first["effects"] == ["restart:sub/a.conf.service"]
    assert (path.read_text(), mode(path), mode(path.parent)) == ("one\n", 0o640, 0o755)
    site.settle()
    before = site.snapshot()
    second = site.run(site.wish("sub/a.conf", "one\n", mode="0640"))
    assert (second["changed"], second["effects"], second["files"]) == (False, [], {str(path): "unchanged"})
    assert site.snapshot() == before


def test_parents_are_open_whatever_the_umask(site):
    old = os.umask(0o077)
    try:
        site.run(site.wish("x/y/a.conf", "one\n"))
    finally:
        os.umask(old)
    assert mode(site.etc / "x") == mode(site.etc / "x/y") == 0o755
    assert mode(site.etc / "x/y/a.conf") == 0o644


def test_state_is_private(site):
    site.run(site.wish("a.conf", "one\n"))
    site.run(site.wish("a.conf", "two\n"))
    for path in (site.state / "managed").rglob("*"):
        assert mode(path) == (0o700 if path.is_dir() else 0o600)
    assert mode(site.state / "managed") == 0o700


def test_our_own_change_is_a_change(site):
    site.run(site.wish("a.conf", "one\n"))
    result = site.run(site.wish("a.conf", "two\n"), diff=True)
    assert result["files"] == {str(site.etc / "a.conf"): "changed"}
    assert result["drift"] == []
    assert result["diff"][0]["before"] == "one\n"
    assert result["diff"][0]["after"] == "two\n"
    assert site.copies() == []


def test_mode_is_corrected_without_an_effect(site):
    site.run(site.wish("a.conf", "one\n"))
    site.settle()
    (site.etc / "a.conf").chmod(0o600)
    result = site.run(site.wish("a.conf", "one\n"), diff=True)
    assert (result["changed"], result["effects"]) == (True, [])
    assert result["files"] == {str(site.etc / "a.conf"): "changed"}
    assert mode(site.etc / "a.conf") == 0o644
    assert [result["diff"][0][side]["mode"] for side in ("before", "after")] == ["0600", "0644"]


def test_directories(site):
    path = site.etc / "local.d"
    wanted = {"path": str(path), "owner": str(os.geteuid()), "group": str(os.getegid()), "mode": "0750"}
    assert site.run(directories=(wanted,))["directories"] == {str(path): "created"}
    assert mode(path) == 0o750
    assert not site.run(directories=(wanted,))["changed"]
    path.chmod(0o755)
    assert site.run(directories=(wanted,))["directories"] == {str(path): "changed"}
    assert mode(path) == 0o750


def test_directory_that_is_a_file_is_refused(site, refused):
    wanted = {"path": str(site.write("x", "")), "owner": str(os.geteuid()), "group": str(os.getegid()), "mode": "0750"}
    assert "is to be a directory" in str(refused(site.run, directories=(wanted,)))


def test_missing_user_stops_before_anything_is_written(site, refused):
    error = refused(site.run, site.wish("a.conf", "one\n"), site.wish("b.conf", "x", owner="nobody-like-this"))
    assert "user nobody-like-this (for " in str(error)
    assert list(site.etc.iterdir()) == []


def test_systemd_files_cause_a_daemon_reload():
    from ansible.module_utils.managed_plan import effects_of

    assert effects_of("/etc/systemd/system/x.service", ["restart:x.service"]) == ("daemon-reload", "restart:x.service")
    assert effects_of("/etc/systemd/system/x.service.d/a.conf", ["daemon-reload"]) == ("daemon-reload",)
    assert effects_of("/etc/x", ["word", "word"]) == ("word",)


# ---- files that were there before ------------------------------------------------------------------------------------


def test_take_over_keeps_the_previous_version(site):
    path = site.write("a.conf", "the package's\n")
    result = site.run(site.wish("a.conf", "ours\n"))
    (copy,) = site.copies()
    assert result["files"] == {str(path): "changed"}
    assert result["drift"] == []
    assert result["replaced"] == {str(path): str(copy)}
    assert str(copy).startswith(f"{site.state}/replaced{path}.2")
    assert copy.read_text() == "the package's\n"
    assert mode(copy) == 0o600
    assert path.read_text() == "ours\n"


def test_take_over_of_the_same_content_is_no_change(site):
    path = site.write("a.conf", "ours\n")
    path.chmod(0o644)
    assert not site.run(site.wish("a.conf", "ours\n"))["changed"]
    assert site.copies() == []
    path.write_text("edited\n")
    assert site.run(site.wish("a.conf", "ours\n"), local_edits="keep")["drift"]


def test_a_link_is_replaced_and_never_followed(site):
    target = site.write("target", "precious\n")
    (site.etc / "a.conf").symlink_to(target)
    site.run(site.wish("a.conf", "ours\n"))
    assert not (site.etc / "a.conf").is_symlink()
    assert target.read_text() == "precious\n"
    (copy,) = site.copies()
    assert os.readlink(copy) == str(target)


def test_a_directory_in_the_way_is_refused(site, refused):
    (site.etc / "a.conf").mkdir()
    assert "is a directory, not a file" in str(refused(site.run, site.wish("a.conf", "ours\n")))


def test_absent_removes_foreign_files_and_keeps_a_copy(site):
    site.write("default", "foreign\n")
    (site.etc / "link").symlink_to("default")
    absent = {"default": ["reload:x.service"], "link": [], "never-there": ["word"]}
    result = site.run(absent=absent)
    assert result["effects"] == ["reload:x.service"]
    assert result["files"] == {str(site.etc / "default"): "removed", str(site.etc / "link"): "removed"}
    assert list(site.etc.iterdir()) == []
    assert len(site.copies()) == 2
    site.settle()
    assert not site.run(absent=absent)["changed"]


def test_file_no_longer_wanted_is_removed_and_its_effects_are_owed(site):
    site.run(site.wish("a.conf", "one\n"), site.wish("b.conf", "two\n"))
    site.settle()
    result = site.run(site.wish("a.conf", "one\n"))
    assert result["files"][str(site.etc / "b.conf")] == "removed"
    assert result["effects"] == ["restart:b.conf.service"]
    assert not (site.etc / "b.conf").exists()
    assert site.copies() == []
    site.settle()
    assert not site.run(site.wish("a.conf", "one\n"))["changed"]


def test_bind_mount_is_written_in_place(site, monkeypatch):
    import errno

    path = site.write("hosts", "old, and longer than the new\n")
    inode = path.stat().st_ino

    def busy(source, target):
        if target == str(path):
            raise OSError(errno.EBUSY, "Device or resource busy")
        os.replace(source, target)

    monkeypatch.setattr("ansible.module_utils.managed_ledger.os.rename", busy)
    site.run(site.wish("hosts", "new\n", mode="0600"))
    assert (path.read_text(), path.stat().st_ino, mode(path)) == ("new\n", inode, 0o600)
    assert [entry.name for entry in site.etc.iterdir()] == ["hosts"]


# ---- drift -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def edited(site):
    """Two files of ours, one of them edited by hand."""
    site.run(site.wish("a.conf", "one\n", variable="demo_settings"), site.wish("b.conf", "two\n"))
    site.settle()
    site.write("a.conf", "one\nby hand\n")
    return site


def wanted(site):
    return site.wish("a.conf", "ONE\n", variable="demo_settings"), site.wish("b.conf", "TWO\n")


def test_stop_writes_nothing_and_says_what_to_do(edited, refused):
    before = edited.snapshot()
    error = refused(edited.run, *wanted(edited))
    assert edited.snapshot() == before
    message = str(error)
    assert "\n" not in message
    for words in (
        f"{edited.etc}/a.conf (edited)",
        "app1",
        "demo_settings",
        "90-local.yml",
        "local_edits=keep",
        "local_edits=overwrite",
    ):
        assert words in message
    (drift,) = error.result["drift"]
    assert "+by hand" in drift["diff"]
    assert (drift["path"], drift["reason"], drift["role"]) == (f"{edited.etc}/a.conf", "edited", "demo")


def test_keep_leaves_the_file_and_reports_it_every_time(edited):
    first = edited.run(*wanted(edited), local_edits="keep")
    assert first["files"] == {f"{edited.etc}/a.conf": "kept", f"{edited.etc}/b.conf": "changed"}
    assert first["effects"] == ["restart:b.conf.service"]
    edited.settle()
    second = edited.run(*wanted(edited), local_edits="keep")
    assert not second["changed"]
    assert [drift["path"] for drift in second["drift"]] == [f"{edited.etc}/a.conf"]
    assert "demo_settings in 90-local.yml" in second["warnings"][0]
    assert (edited.etc / "a.conf").read_text() == "one\nby hand\n"


def test_overwrite_keeps_the_edited_copy(edited):
    result = edited.run(*wanted(edited), local_edits="overwrite")
    (copy,) = edited.copies()
    assert copy.read_text() == "one\nby hand\n"
    assert (edited.etc / "a.conf").read_text() == "ONE\n"
    assert result["replaced"] == {f"{edited.etc}/a.conf": str(copy)}
    assert str(copy) in result["warnings"][0]
    edited.settle()
    assert not edited.run(*wanted(edited))["changed"]


def test_the_same_change_by_a_variable_is_no_drift(edited):
    result = edited.run(edited.wish("a.conf", "one\nby hand\n"), edited.wish("b.conf", "two\n"))
    assert (result["changed"], result["drift"]) == (False, [])
    assert not edited.run(edited.wish("a.conf", "one\nby hand\n"), edited.wish("b.conf", "two\n"))["drift"]


@pytest.mark.parametrize(("choice", "outcome"), [("keep", "kept"), ("overwrite", "created")])
def test_removed_by_hand_is_drift(site, refused, choice, outcome):
    site.run(site.wish("a.conf", "one\n"))
    (site.etc / "a.conf").unlink()
    assert "a.conf (removed)" in str(refused(site.run, site.wish("a.conf", "one\n")))
    result = site.run(site.wish("a.conf", "one\n"), local_edits=choice)
    assert result["files"] == {f"{site.etc}/a.conf": outcome}
    assert (site.etc / "a.conf").exists() is (choice == "overwrite")


def test_link_in_place_of_ours_is_drift(site, refused):
    site.run(site.wish("a.conf", "one\n"))
    (site.etc / "a.conf").unlink()
    (site.etc / "a.conf").symlink_to("elsewhere")
    assert "replaced by a link to elsewhere" in str(refused(site.run, site.wish("a.conf", "one\n")))


def test_edited_file_that_is_no_longer_wanted(edited, refused):
    rest = edited.wish("b.conf", "two\n")
    assert "a.conf (edited)" in str(refused(edited.run, rest))
    assert edited.run(rest, local_edits="keep")["files"][f"{edited.etc}/a.conf"] == "kept"
    assert edited.run(rest, local_edits="overwrite")["files"][f"{edited.etc}/a.conf"] == "removed"
    assert [copy.read_text() for copy in edited.copies()] == ["one\nby hand\n"]


def test_damaged_ledger_is_said(site, refused):
    site.run(site.wish("a.conf", "one\n"))
    (site.state / "managed/demo.json").write_text("{}")
    assert "managed/demo.json cannot be read" in str(refused(site.run, site.wish("a.conf", "one\n")))


# ---- killed runs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("new", [True, False])
def test_killed_run_is_neither_drift_nor_a_lost_effect(site, number, after, new):
    if not new:
        site.run(site.wish("a.conf", "one\n"), site.wish("b.conf", "two\n"))
        site.settle()
    files = site.wish("a.conf", "ONE\n"), site.wish("b.conf", "TWO\n")
    with pytest.raises(Killed):
        site.run(*files, carry=kill_at(number, after=after))
    result = site.run(*files)
    assert result["changed"]
    assert result["drift"] == []
    assert result["effects"] == ["restart:a.conf.service", "restart:b.conf.service"]
    assert (site.etc / "b.conf").read_text() == "TWO\n"
    assert site.copies() == []
    site.settle()
    assert not site.run(*files)["changed"]


@pytest.mark.parametrize("after", [False, True])
def test_killed_twice_with_other_content_each_time(site, after):
    site.run(site.wish("a.conf", "one\n"))
    for content in ("two\n", "three\n", "four\n"):
        with pytest.raises(Killed):
            site.run(site.wish("a.conf", content), carry=kill_at(1, after=after))
    assert site.run(site.wish("a.conf", "five\n"))["drift"] == []


def test_killed_while_writing_and_then_while_removing(site):
    site.run(site.wish("a.conf", "one\n"))
    for files, after in (((site.wish("a.conf", "two\n"),), True), ((), False)):
        with pytest.raises(Killed):
            site.run(*files, carry=kill_at(1, after=after))
    assert site.run(site.wish("a.conf", "three\n"))["drift"] == []


@pytest.mark.parametrize("after", [False, True])
def test_killed_while_removing(site, after):
    site.run(site.wish("a.conf", "one\n"))
    site.settle()
    with pytest.raises(Killed):
        site.run(carry=kill_at(1, after=after))
    # Wanted again, or still not: both are no drift.
    assert site.run(site.wish("a.conf", "two\n"), check_mode=True)["drift"] == []
    result = site.run()
    assert result["effects"] == ["restart:a.conf.service"]
    assert not (site.etc / "a.conf").exists()


def test_edit_after_a_killed_run_is_drift(site, refused):
    site.run(site.wish("a.conf", "one\n"))
    with pytest.raises(Killed):
        site.run(site.wish("a.conf", "two\n"), carry=kill_at(1, after=True))
    site.write("a.conf", "by hand\n")
    assert "a.conf (edited)" in str(refused(site.run, site.wish("a.conf", "two\n")))


def test_foreign_file_of_a_killed_take_over_is_kept(site):
    site.write("a.conf", "foreign\n")
    with pytest.raises(Killed):
        site.run(site.wish("a.conf", "ours\n"), carry=kill_at(1, after=False))
    assert site.run(site.wish("a.conf", "ours\n"))["drift"] == []
    assert {copy.read_text() for copy in site.copies()} == {"foreign\n"}


def test_what_a_killed_write_left_is_cleaned(site):
    site.write(".a.conf.managed-new", "half")
    site.run(site.wish("a.conf", "one\n"))
    assert [entry.name for entry in site.etc.iterdir()] == ["a.conf"]


# ---- effects ---------------------------------------------------------------------------------------------------------


def test_owed_until_settled(site):
    files = site.wish("a.conf", "one\n"), site.wish("b.conf", "two\n", effects=["word"])
    site.run(*files)
    again = site.run(*files)
    assert again["changed"]
    assert set(again["files"].values()) == {"unchanged"}
    assert again["effects"] == ["restart:a.conf.service", "word"]
    settled = site.run(settled=("word", "never-owed"))
    assert (settled["changed"], settled["settled"], settled["effects"]) == (True, ["word"], ["restart:a.conf.service"])
    assert not site.run(settled=("word",))["changed"]
    assert (site.etc / "a.conf").exists()


# ---- validators ------------------------------------------------------------------------------------------------------


def test_refused_file_changes_nothing(site, refused):
    site.run(site.wish("a.conf", "one\n"))
    site.settle()
    before = site.snapshot()
    bad = site.wish("b.conf", "bad\n", validate="sh -c 'echo in $0: syntax error; exit 1' %s")
    error = refused(site.run, site.wish("a.conf", "ONE\n"), bad)
    assert f"in {site.etc}/b.conf: syntax error" in str(error)
    assert site.snapshot() == before


def test_validator_sees_the_new_file_in_private_under_its_name(site):
    script = 'test "$(basename $0)" = a.conf && grep -q new $0 && test "$(stat -c %a $0)" = 600'
    site.run(site.wish("a.conf", "new\n", validate=f"sh -c '{script}' %s"))


def test_unchanged_file_is_not_validated(site):
    site.write("a.conf", "one\n")
    site.run(site.wish("a.conf", "one\n", validate="false %s"))


def test_missing_validator(site, refused):
    wish = site.wish("a.conf", "one\n", validate="no-such-validator %s")
    assert site.run(wish, check_mode=True)["changed"]
    assert "no-such-validator is not installed" in str(refused(site.run, wish))
    assert list(site.etc.iterdir()) == []


def test_dry_run_refuses_only_where_the_role_was_before(site, refused):
    bad = site.wish("a.conf", "one\n", validate="false %s")
    assert "is refused by" in site.run(bad, check_mode=True)["warnings"][0]
    site.run(site.wish("b.conf", "x\n"))
    assert "is refused by" in str(refused(site.run, site.wish("b.conf", "x\n"), bad, check_mode=True))


def test_tree_is_validated_as_it_would_be(site):
    site.write("nginx/sites/kept", "kept\n")
    site.write("nginx/sites/default", "foreign\n")
    (site.etc / "nginx/enabled").mkdir()
    (site.etc / "nginx/enabled/absolute").symlink_to(site.etc / "nginx/nginx.conf")
    (site.etc / "nginx/enabled/outside").symlink_to("/etc/hostname")
    os.mkfifo(site.etc / "nginx/pipe")
    script = (
        f"cd $0 && test $0 != {site.etc}/nginx && grep -q new nginx.conf && grep -q kept sites/kept "
        "&& test ! -e sites/default && grep -q new enabled/absolute && test $(readlink enabled/outside) = /etc/hostname"
    )
    tree = {"tree": str(site.etc / "nginx"), "command": f"sh -c '{script}' %s"}
    result = site.run(site.wish("nginx/nginx.conf", "new\n"), validate=(tree,), absent={"nginx/sites/default": []})
    assert result["files"][f"{site.etc}/nginx/nginx.conf"] == "created"


def test_refused_tree_changes_nothing(site, refused):
    site.write("nginx/nginx.conf", "old\n")
    before = site.snapshot()
    tree = {"tree": str(site.etc / "nginx"), "command": "sh -c 'echo $0/nginx.conf:1 broken; exit 1' %s"}
    error = refused(site.run, site.wish("nginx/nginx.conf", "new\n"), validate=(tree,))
    assert f"{site.etc}/nginx/nginx.conf:1 broken" in str(error)
    assert site.snapshot() == before


def test_kept_edit_is_part_of_the_validated_tree(site):
    site.run(site.wish("n/a", "one\n"))
    site.write("n/a", "by hand\n")
    tree = {"tree": str(site.etc / "n"), "command": "sh -c 'grep -q hand $0/a && test -e $0/b' %s"}
    site.run(site.wish("n/a", "ONE\n"), site.wish("n/b", "x\n"), validate=(tree,), local_edits="keep")


def test_untouched_tree_is_not_validated(site):
    site.run(site.wish("n/a", "one\n"))
    site.run(
        site.wish("n/a", "one\n"), site.wish("m/b", "x"), validate=({"tree": f"{site.etc}/n", "command": "false %s"},)
    )


# ---- check mode and differences --------------------------------------------------------------------------------------


def test_check_mode_predicts_and_writes_nothing(site):
    site.run(site.wish("a.conf", "one\n"), site.wish("gone.conf", "x\n"), site.wish("same.conf", "y\n"))
    site.settle()
    site.write("foreign.conf", "foreign\n")
    site.write("default", "foreign\n")
    files = [site.wish(name, f"{name}\n") for name in ("a.conf", "new/b.conf", "foreign.conf")] + [
        site.wish("same.conf", "y\n")
    ]
    directory = {"path": str(site.etc / "d"), "owner": str(os.geteuid()), "group": str(os.getegid()), "mode": "0755"}
    more = {"directories": (directory,), "absent": {"default": ["word"]}}
    before = site.snapshot()
    predicted = site.run(*files, **more, check_mode=True, diff=True)
    assert site.snapshot() == before
    real = site.run(*files, **more, diff=True)
    for key in ("changed", "effects", "files", "directories", "drift", "diff"):
        assert predicted[key] == real[key], key


def test_check_mode_on_a_virgin_host(site):
    result = site.run(
        site.wish("a.conf", "x\n", owner="nobody-like-this", group="no-such-group"), check_mode=True, diff=True
    )
    assert result["changed"]
    assert not site.state.exists()


def test_check_mode_stops_on_drift_too(edited, refused):
    assert refused(edited.run, *wanted(edited), check_mode=True).result["drift"]


def test_large_and_binary_differences_are_not_shown(site):
    result = site.run(site.wish("big", "x" * 300_000), site.wish("binary", "\0\1"), diff=True)
    assert len(json.dumps(result["diff"])) < 1000


def test_long_drift_is_cut(site, refused):
    site.run(site.wish("a", ""))
    site.write("a", "line\n" * 5000)
    diff = refused(site.run, site.wish("a", "")).result["drift"][0]["diff"]
    assert diff.endswith("more lines")
    assert len(diff.splitlines()) < 250


# ---- secrets ---------------------------------------------------------------------------------------------------------


def test_sensitive_content_is_in_no_output_and_in_no_copy_of_ours(site, refused):
    canary, other = "CANARY-4711", "CANARY-0815"

    def wish(secret, **more):
        return site.wish("s.conf", f'password="{secret}" # {secret}\n', sensitive=True, mode="0600", **more)

    site.write("s.conf", f"password={canary}-of-before\n")
    outputs = [
        site.run(wish(canary), check_mode=True, diff=True),
        site.run(wish(canary), diff=True),
        site.run(wish(other), diff=True),
    ]
    complain = "cat $0; echo unknown directive $(grep -o CAN[A-Z]*-[0-9]* $0 | head -1) at line 3; exit 1"
    error = refused(site.run, wish(canary, validate=f"sh -c '{complain}' %s"))
    assert "unknown directive **** at line 3" in str(error)
    tree = ({"tree": str(site.etc), "command": "sh -c 'cat $0/s.conf; exit 1' %s"},)
    outputs += [str(error), str(refused(site.run, wish(canary), validate=tree))]
    assert canary not in str(site.ledger().dump())
    ours = [path for path in (site.state / "managed").rglob("*") if path.is_file()]
    assert all(canary.encode() not in path.read_bytes() for path in ours)
    (site.etc / "s.conf").write_text(f"password={canary}-by-hand\n")
    error = refused(site.run, wish(other))
    assert "s.conf (edited)" in str(error)
    outputs += [str(error), error.result, site.run(wish(other), local_edits="keep", diff=True)]
    outputs += [site.run(wish(other), local_edits="overwrite", diff=True), site.run(diff=True)]
    text = json.dumps(outputs)
    assert canary not in text
    assert other not in text
    assert [mode(copy) for copy in site.copies()] == [0o600, 0o600]


def test_file_that_becomes_sensitive_leaves_no_private_copy(site):
    site.run(site.wish("s.conf", "CANARY\n"))
    site.run(site.wish("s.conf", "CANARY\n", sensitive=True))
    (copy,) = (site.state / "managed/demo.d").iterdir()
    assert b"CANARY" not in copy.read_bytes()


def test_drift_of_a_sensitive_file_shows_names_and_no_values(site, refused):
    site.run(site.wish("s.yml", "users:\n  - name: db\n    password: CANARY\nport: 1\n", sensitive=True))
    (site.etc / "s.yml").write_text(
        "users:\n  - name: db\n    password: BY-HAND\nport: 1\nwork_mem: 64MB\nraw BY-HAND\n"
    )
    (drift,) = refused(site.run, site.wish("s.yml", "port: 1\n", sensitive=True)).result["drift"]
    lines = drift["diff"].splitlines()
    assert [
        re.sub(r"[0-9a-f]{4}\)$", "x)", line) for line in lines if line[0] in "+-" and line[:3] not in ("+++", "---")
    ] == [
        "-    password: (hidden, x)",
        "+    password: (hidden, x)",
        "+work_mem: (hidden, x)",
        "+(hidden, x)",
    ]
    assert "users:" in drift["diff"]
    assert "CANARY" not in drift["diff"]
    assert "BY-HAND" not in drift["diff"]
