"""Archives as Zulip's `manage.py backup` makes them, and the programs that read them."""

from __future__ import annotations

import gzip
import importlib.util
import io
import sys
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]
SECRETS = b"[secrets]\navatar_salt = salt\nsecret_key = a%(b)c#d\nemail_password = own\n"
FILES: dict[str, bytes] = {
    "zulip-version": b"8.4\n8.4-1-gabc\n",
    "os-version": b"debian 12\n",
    "postgres-version": b"150004\n",
    "settings/zulip-secrets.conf": SECRETS,
    "database/toc.dat": b"PGDMP",
    "database/12.dat.gz": gzip.compress(b"1\ta\n2\tb\\\\.\n\\.\n\n\n"),
    "database/13.dat.gz": gzip.compress(b"\\.\n\n\n"),
    "uploads/files/2/ab/plan.txt": b"the plan",
    "uploads/avatars/2/face.png": b"a face",
}


def program(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"playbooks/files/{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """Return what writes an archive: files to add or, with None, to leave out; more entries as they are."""

    def write(files: Mapping[str, bytes | None] | None = None, entries: tuple[tarfile.TarInfo, ...] = ()) -> Path:
        path = tmp_path / "backup.tar.gz"
        with tarfile.open(path, "w:gz") as tar:
            for name, content in {**FILES, **(files or {})}.items():
                if content is not None:
                    entry = tarfile.TarInfo(name if name.startswith("/") else f"zulip-backup/{name}")
                    entry.size, entry.mtime = len(content), 1_700_000_000
                    tar.addfile(entry, io.BytesIO(content))
            for entry in entries:
                tar.addfile(entry)
        return path

    return write
