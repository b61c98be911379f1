"""What a host gets is enough for its programs to start, and they leave nothing beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.app.installed import installed, see_that_imports_come_first, see_that_they_start
from tests.unit.app.paths import ROOT

ROLE = ROOT / "roles/pgbackrest"
VARIABLES = yaml.safe_load((ROLE / "vars/main.yml").read_text())
DATABASE = VARIABLES["__pgbackrest_own_files"]
BACKUP = DATABASE + VARIABLES["__pgbackrest_backup_files"]


@pytest.mark.parametrize(
    ("files", "programs"),
    [(DATABASE, ["postgresql_restore"]), (BACKUP, ["postgresql_restore", "postgresql_backup"])],
    ids=["database host", "backup host"],
)
def test_a_program_starts_with_what_its_host_gets(
    tmp_path: Path, files: list[dict[str, Any]], programs: list[str]
) -> None:
    see_that_they_start(programs, installed(files), ROLE / "files", tmp_path)


def test_what_is_imported_comes_before_who_imports_it() -> None:
    see_that_imports_come_first(installed(BACKUP), ROLE / "files")
