#!/usr/bin/env python3
"""Makes source tarballs of test releases of the stand-in, each a little different from the one before.

  tests/upgrade/make_releases.py OUT_DIR [VARIANT...] [--base VARIANT=OTHER]...

Each folder of releases/ is a variant: variant.yml says what it is, which variant it is `base`d on (none: the stand-in
as it is), its place in the `order` of versions, and its `edits`, each of which has to find its text exactly once (the 2
of `|2` keeps the indentation of the text); tree/ holds files that it adds. Of the same sources come the same tarballs,
byte by byte. OUT_DIR/VARIANT.tar.gz is a `release_source`. Prints as JSON, for each variant, its path and version.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
STANDIN = ROOT / "standin"
RELEASES = Path(__file__).resolve().with_name("releases")
VERSION = re.compile(r"(?P<front>\d+\.\d+\+standin\.)(?P<number>\d+)")
# What a work tree may have besides the release, as its .gitignore says.
MADE = ["prod-static", "zproject/prod_settings.py"]

# A compiled file beside the program's parts would be copied to builders.
sys.dont_write_bytecode = True
sys.path.append(str(ROOT / "roles/release/files"))
from release_shelf.sources import ALWAYS_EXCLUDED, pack_folder  # noqa: E402


def variants() -> dict[str, dict[str, Any]]:
    """Return what is known of each variant, in the order of their versions."""
    found = {path.parent.name: yaml.safe_load(path.read_text()) for path in RELEASES.glob("*/variant.yml")}
    return dict(sorted(found.items(), key=lambda item: item[1]["order"]))


def chain(name: str, known: dict[str, dict[str, Any]]) -> list[str]:
    """Return a variant and all that it is based on, the first one first."""
    names: list[str] = []
    following: str | None = name
    while following:
        if following not in known:
            raise SystemExit(f"there is no variant {following}, known are: {', '.join(known)}")
        if following in names:
            raise SystemExit(f"the variant {name} is based on itself")
        names.insert(0, following)
        following = known[following].get("base")
    return names


def version_of(order: int) -> str:
    """Return a version that is so many after the stand-in's own."""
    text = (STANDIN / "VERSION").read_text().strip()
    found = VERSION.fullmatch(text)
    if not found:
        raise SystemExit(f"the stand-in's version {text} is not like 12.0+standin.1")
    return f"{found['front']}{int(found['number']) + order}"


def edit(path: Path, find: str, replace: str, name: str) -> None:
    """Replace a text that is there once."""
    text = path.read_text()
    times = text.count(find)
    if times != 1:
        raise SystemExit(
            f"the variant {name} wants to find this once in {path.name}, and finds it {times} times: {find}"
        )
    path.write_text(text.replace(find, replace))


def make_tree(names: Sequence[str], known: dict[str, dict[str, Any]], target: Path) -> str:
    """Write the tree of the last of these variants, and return its version."""
    shutil.copytree(STANDIN, target, symlinks=True, ignore=shutil.ignore_patterns(*ALWAYS_EXCLUDED, "*.pyc"))
    for made in MADE:
        path = target / made
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    for name in names:
        if (RELEASES / name / "tree").is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(RELEASES / name / "tree", target, dirs_exist_ok=True, ignore=ignored)
        for one in known[name].get("edits", ()):
            edit(target / one["file"], one["find"], one["replace"], name)
    version = version_of(known[names[-1]]["order"])
    (target / "VERSION").write_text(f"{version}\n")
    return version


def make(name: str, known: dict[str, dict[str, Any]], directory: Path) -> dict[str, str]:
    """Write one variant's tarball, and return what it is."""
    with tempfile.TemporaryDirectory() as work:
        tree = Path(work) / "tree"
        version = make_tree(chain(name, known), known, tree)
        # One folder holds everything, as in a release tarball.
        top = Path(work) / "top"
        top.mkdir()
        tree.rename(top / f"standin-{version}")
        path = directory / f"{name}.tar.gz"
        directory.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".part")
        pack_folder(top, ALWAYS_EXCLUDED, temporary)
        temporary.rename(path)
    return {"path": str(path.resolve()), "version": version}


def main(arguments: Sequence[str]) -> int:
    """Make the tarballs."""
    parser = argparse.ArgumentParser(prog="make_releases.py", description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path, metavar="OUT_DIR")
    parser.add_argument("variants", nargs="*", metavar="VARIANT", help="all, unless named")
    parser.add_argument(
        "--base", action="append", default=[], metavar="VARIANT=OTHER", help="base a variant on another"
    )
    options = parser.parse_args(arguments)
    known = variants()
    for text in options.base:
        name, _, base = text.partition("=")
        if name not in known or base not in known:
            parser.error(f"--base {text} names no two variants, known are: {', '.join(known)}")
        known[name]["base"] = base
    wanted = options.variants or list(known)
    print(json.dumps({name: make(name, known, options.directory) for name in wanted}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
