"""What the backup host gets is enough for the drill to start, and it leaves nothing beside it."""

from __future__ import annotations

from pathlib import Path

import yaml

from tests.unit.app.installed import installed, see_that_imports_come_first, see_that_they_start
from tests.unit.app.paths import ROOT

ROLE = ROOT / "roles/restore_drill"
FILES = yaml.safe_load((ROLE / "vars/main.yml").read_text())["__restore_drill_files"]
NAMES = installed(FILES, "{{ __restore_drill_programs }}")


def test_the_drill_starts_with_what_its_host_gets(tmp_path: Path) -> None:
    see_that_they_start(["restore_drill"], NAMES, ROLE / "files", tmp_path)


def test_what_is_imported_comes_before_who_imports_it() -> None:
    see_that_imports_come_first(NAMES, ROLE / "files")
