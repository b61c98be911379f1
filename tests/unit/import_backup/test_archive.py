"""The program that reads an archive: what it finds, what it refuses, and where it writes."""

from __future__ import annotations

import gzip
import hashlib
import json
import tarfile
from pathlib import Path

import pytest

from tests.unit.import_backup.conftest import program

archive = program("import_archive")


def run(capsys, *words) -> tuple[int, dict, str]:
    status = archive.main([str(word) for word in words])
    out, err = capsys.readouterr()
    return status, json.loads(out or "{}"), err


def link(name: str, to: str) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(f"zulip-backup/{name}")
    entry.type, entry.linkname = tarfile.SYMTYPE, to
    return entry


def test_what_is_in_it(make, capsys):
    path = make(entries=(link("uploads/files/2/way", "/etc/passwd"),))
    status, found, err = run(capsys, "inspect", path)
    assert (status, err) == (0, "")
    assert found["zulip-version"].splitlines()[0] == "8.4"
    assert (found["os-version"], found["postgres-version"]) == ("debian 12", "150004")
    assert found["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found["dump"]["toc"] is True
    # A row that ends in a backslash and a dot is a row.
    assert found["dump"]["rows"] == {"12": 2, "13": 0}
    assert found["dump"]["files"] == 3
    assert found["uploads"] == {"files": 2, "bytes": 14, "skipped": 1}
    # Names alone, unless asked for.
    assert found["secrets"] == ["avatar_salt", "email_password", "secret_key"]


def test_secrets_are_literal(make, capsys):
    found = run(capsys, "inspect", make(), "--secrets")[1]
    assert found["secrets"] == {"avatar_salt": "salt", "secret_key": "a%(b)c#d", "email_password": "own"}


def test_plain_data_are_counted_too(make, capsys):
    files = {"database/12.dat.gz": None, "database/12.dat": b"1\n2\n3\n\\.\n\n\n", "database/blob_9.dat": b"x"}
    assert run(capsys, "inspect", make(files))[1]["dump"]["rows"] == {"12": 3, "13": 0}


def test_a_table_without_an_end_is_told(make, capsys):
    found = run(capsys, "inspect", make({"database/12.dat.gz": gzip.compress(b"1\ta\n2\t")}))[1]
    assert found["dump"]["rows"]["12"] is None


@pytest.mark.parametrize("at", [0.3, 0.7, 0.999])
def test_an_archive_that_was_cut_is_refused_in_one_line(make, capsys, at):
    path = make()
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * at)])
    status, _found, err = run(capsys, "inspect", path)
    assert status == 1
    assert "is not whole" in err
    assert err.count("\n") == 1


def test_a_flipped_bit_is_found(make, capsys):
    path = make()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)
    assert run(capsys, "inspect", path)[0] == 1


def test_a_dump_that_is_broken_inside_is_found(make, capsys):
    broken = gzip.compress(b"1\ta\n" * 1000)[:-6]
    status, _found, err = run(capsys, "inspect", make({"database/12.dat.gz": broken}))
    assert status == 1
    assert "is not whole" in err


@pytest.mark.parametrize("name", ["../x", "/etc/cron.d/x", "uploads/../../x"])
@pytest.mark.parametrize("words", [["inspect"], ["unpack"]])
def test_what_would_lead_out_of_it_is_refused(make, capsys, tmp_path, name, words):
    path = make({name: b"x"})
    more = ["uploads", tmp_path / "to/uploads"] if words == ["unpack"] else []
    status, _found, err = run(capsys, *words, path, *more)
    assert status == 1
    assert "manage.py backup" in err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("content", [b"", b"hello"])
def test_what_is_no_archive_is_refused(tmp_path, capsys, content):
    (tmp_path / "x").write_bytes(content)
    status, _found, err = run(capsys, "inspect", tmp_path / "x")
    assert (status, err.count("\n")) == (1, 1)


def test_a_part_is_unpacked_once(make, capsys, tmp_path: Path):
    path, to = make(entries=(link("uploads/files/2/way", "/etc/passwd"),)), tmp_path / "uploads"
    assert run(capsys, "unpack", path, "uploads", to)[1] == {"new": 2, "there": 0}
    assert (to / "files/2/ab/plan.txt").read_bytes() == b"the plan"
    assert sorted(str(one.relative_to(to)) for one in to.rglob("*") if one.is_file()) == [
        "avatars/2/face.png",
        "files/2/ab/plan.txt",
    ]
    assert (to / "files/2/ab").stat().st_mode & 0o777 == 0o755
    assert run(capsys, "unpack", path, "uploads", to)[1] == {"new": 0, "there": 2}
    # What was not whole, or is another file, is replaced.
    (to / "avatars/2/face.png").write_bytes(b"a fac")
    assert run(capsys, "unpack", path, "uploads", to)[1] == {"new": 1, "there": 1}
    assert run(capsys, "unpack", path, "database", tmp_path / "database")[1] == {"new": 3, "there": 0}
    assert (tmp_path / "database/toc.dat").exists()
