"""What a host gets of a program and its modules, by the variables of the role that brings them."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def installed(files: Iterable[dict[str, Any]], folder: str = "/usr/local/lib/zulip-ha") -> list[str]:
    """Return the names of programs and modules, in the order in which they come; folder: as the role writes it."""
    return [file["source"] for file in files if file["path"] == f"{folder}/{file.get('source')}"]


def see_that_they_start(programs: Iterable[str], names: Iterable[str], source: Path, folder: Path) -> None:
    """Start programs in a folder that has nothing but the names; see that they leave nothing beside them."""
    for name in names:
        shutil.copy(source / name, folder)
    for program in programs:
        words = [sys.executable, "-I", str(folder / program), "--help"]
        done = subprocess.run(words, cwd="/", capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"usage: {program}")
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)


def see_that_imports_come_first(names: list[str], source: Path) -> None:
    """See that every module of a role is brought, and before those who import it."""
    modules = {Path(name).stem for name in names if name.endswith(".py")}
    assert modules == {path.stem for path in source.glob("*.py")}
    for place, name in enumerate(names):
        tree = ast.parse((source / name).read_text())
        wanted = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)} & modules
        assert wanted <= {Path(before).stem for before in names[:place]}, name
