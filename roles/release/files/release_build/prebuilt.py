"""A virtualenv that was made elsewhere: refused where it cannot run, else moved to the path of every host."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from . import archives
from .pip import Pip, add_extra
from .requirements import canonical, name_of
from .workshop import Failure, Workshop

TEMPORARY = ".prebuilt-"
MARKER = ".zulip-ha.json"
ELF = b"\x7fELF"
SHOWN = 3
BATCH = 100
_SHEBANG = re.compile(rb"^#! ?(?P<python>/[^\n ]+/bin/python[0-9.]*)[ \n]")
_LONG_SHEBANG = re.compile(rb"^#!/bin/sh\n'''exec' \"?(?P<python>/[^\n\"]+/bin/python[0-9.]*)\"? ")
_VERSION = re.compile(r"^version(?:_info)? *= *(?P<version>\d+\.\d+)", re.MULTILINE)
_NOT_FOUND = re.compile(r"^\s*(?P<library>\S+) => not found", re.MULTILINE)
_TOO_OLD = re.compile(r"version [`'](?P<version>\S+)' not found \(required by (?P<file>[^)]+)\)")


def take(shop: Workshop, venv: Path) -> None:
    """Unpack the archive, refuse it or move it to its place. What is refused leaves nothing."""
    temporary = venv.parent / f"{TEMPORARY}{venv.name}"
    temporary.mkdir(mode=0o755)
    try:
        try:
            archives.unpack(Path(shop.spec["venv_archive"]), temporary)
        except archives.ArchiveError as error:
            raise Failure(f"the virtualenv's archive {error}") from None
        root = archives.only_folder(temporary)
        if not (root / "pyvenv.cfg").is_file():
            raise Failure("the virtualenv's archive holds no virtualenv: there is no pyvenv.cfg at its top")
        shop.give(temporary)
        check_python(root)
        check_marker(root, shop.spec["codename"])
        check_libraries(shop, root)
        relocate(root, venv, shop.python)
        (root / MARKER).unlink(missing_ok=True)
        root.rename(venv)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    if shop.spec["replacements"]:
        shop.note("release_requirement_replacements was not used: the virtualenv is a prebuilt one")
    complete(shop, venv)


def host_python() -> str:
    """Return the version of this host's Python."""
    return ".".join(map(str, sys.version_info[:2]))


def check_python(root: Path) -> None:
    """Refuse a virtualenv of another Python."""
    configured = _VERSION.search((root / "pyvenv.cfg").read_text(encoding="utf-8"))
    versions = {path.parent.name.removeprefix("python") for path in root.glob("lib/python*/site-packages")}
    versions |= {configured["version"]} if configured else set()
    if versions != {host_python()}:
        shown = " and ".join(sorted(versions)) or "no known version"
        raise Failure(f"the prebuilt virtualenv is one of Python {shown}, and this host has Python {host_python()}")


def check_marker(root: Path, codename: str) -> None:
    """Refuse a virtualenv that was built here for another distribution or processor."""
    try:
        marker = json.loads((root / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    for what, key, have in (("distribution", "codename", codename), ("processor", "architecture", os.uname().machine)):
        built = marker.get(key, have)
        if built != have:
            raise Failure(f"the prebuilt virtualenv was built for the {what} {built}, and this host has {have}")


def compiled(root: Path) -> list[Path]:
    """Return the compiled modules, libraries and programs of a virtualenv, apart from a Python of its own."""
    found = []
    for path in sorted(root.rglob("*")):
        program = path.parent == root / "bin" and not path.name.startswith("python")
        if path.is_file() and not path.is_symlink() and (".so" in path.name or program):
            with path.open("rb") as stream:
                if stream.read(4) == ELF:
                    found.append(path)
    return found


def machine(path: Path) -> bytes:
    """Return for which processor a file was compiled."""
    with path.open("rb") as stream:
        head = stream.read(20)
    return head[4:6] + head[18:20]


def check_libraries(shop: Workshop, root: Path) -> None:
    """Refuse a virtualenv whose compiled modules this host cannot load."""
    files = compiled(root)
    mine = machine(Path(os.path.realpath(shop.python)))
    for path in files:
        if machine(path) != mine:
            raise Failure(f"the prebuilt virtualenv's {path.relative_to(root)} was compiled for another processor")
    bundled = {path.name for path in files}
    problems: list[str] = []
    for first in range(0, len(files), BATCH):
        batch = files[first : first + BATCH]
        # ldd runs the loader, so it runs as the account that builds. Its status only says that something is missing.
        code, output = shop.try_run(["ldd", *map(str, batch)], root)
        if code not in (0, 1):
            raise Failure(f"ldd cannot say which libraries the prebuilt virtualenv needs: {output.strip()}")
        problems += library_problems(output, root, batch[0], bundled)
    if problems:
        more = f" and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise Failure(
            f"the prebuilt virtualenv cannot run here: {'; '.join(problems[:SHOWN])}{more}. "
            "Take one that was made on this distribution, or name the libraries' packages in release_builder_packages"
        )


def library_problems(output: str, root: Path, first: Path, bundled: set[str]) -> list[str]:
    """Return what ldd says is missing, by module.

    A library that a wheel brought along is found by the module that needs it, but not when ldd looks at it alone.
    """
    problems: dict[str, None] = {}
    current = str(first)
    for line in output.splitlines():
        if old := _TOO_OLD.search(line):
            name = old["file"].removeprefix(f"{root}/")
            problems[f"{name} needs {old['version']}, which this host's is too old for"] = None
        elif line.endswith(":") and not line[:1].isspace():
            current = line[:-1]
        elif (missing := _NOT_FOUND.match(line)) and missing["library"] not in bundled:
            name = current.removeprefix(f"{root}/")
            problems[f"{name} needs {missing['library']}, which this host does not have"] = None
    return list(problems)


def old_home(root: Path) -> str:
    """Return the path that a virtualenv was made at, by the first lines of most of its programs."""
    homes: Counter[str] = Counter()
    for path in (root / "bin").iterdir():
        if path.is_file() and not path.is_symlink():
            start = path.read_bytes()[:4096]
            found = _SHEBANG.match(start) or _LONG_SHEBANG.match(start)
            home = os.path.dirname(os.path.dirname(os.fsdecode(found["python"]))) if found else "/usr"
            if home not in ("/usr", "/usr/local", "/"):
                homes[home] += 1
    if homes:
        return homes.most_common(1)[0][0]
    activate = root / "bin/activate"
    found_path = re.search(r"VIRTUAL_ENV=[\"']?(/[^\"'\n]+)", activate.read_text()) if activate.is_file() else None
    return found_path[1] if found_path else ""


def relocate(root: Path, venv: Path, python: str) -> None:
    """Make a virtualenv one of another path and of this host's Python."""
    old = old_home(root)
    if old and old != str(venv):
        elsewhere = re.compile(re.escape(old.encode()) + rb"(?![A-Za-z0-9._-])")
        for path in [*(root / "bin").iterdir(), *root.glob("lib/python*/site-packages/*.pth")]:
            if path.is_symlink() or not path.is_file():
                continue
            data = path.read_bytes()
            # A program that was compiled cannot be changed in length.
            if b"\0" not in data and elsewhere.search(data):
                path.write_bytes(elsewhere.sub(os.fsencode(str(venv)), data))
    for path in (root / "bin").glob("python*"):
        if re.fullmatch(r"python[0-9.]*", path.name):
            path.unlink()
    (root / "bin/python3").symlink_to(python)
    for name in ("python", f"python{host_python()}"):
        (root / "bin" / name).symlink_to("python3")
    write_configuration(root / "pyvenv.cfg", venv, python)


def write_configuration(path: Path, venv: Path, python: str) -> None:
    """Write pyvenv.cfg as `python3 -m venv` would have at the new path."""
    old: dict[str, Any] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition("=")
        old[key.strip()] = value.strip()
    values = {
        "home": os.path.dirname(python),
        "include-system-site-packages": old.get("include-system-site-packages", "false"),
        "version": ".".join(map(str, sys.version_info[:3])),
        "executable": os.path.realpath(python),
        "command": f"{python} -m venv {venv}",
    }
    path.write_text("".join(f"{key} = {value}\n" for key, value in values.items()), encoding="utf-8")


def complete(shop: Workshop, venv: Path) -> None:
    """Add what the contract wants beyond the release's requirements and the archive does not have."""
    present = {
        canonical(path.name.removesuffix(".dist-info").rsplit("-", 1)[0])
        for path in venv.glob("lib/python*/site-packages/*.dist-info")
    }
    extra = [line for line in shop.spec["extra_requirements"] if name_of(line) not in present]
    if not extra:
        return
    shop.say(f"the virtualenv lacks {', '.join(extra)}")
    shop.give(venv)
    if "pip" not in present:
        shop.run([str(venv / "bin/python"), "-m", "ensurepip", "--default-pip"], shop.scratch)
    add_extra(shop, Pip(shop, venv), {}, extra)
