"""The maker of test releases."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.app.paths import ROOT, load_program

maker = load_program("tests/upgrade/make_releases.py", "make_releases")
VARIANTS = ["code", "expand", "locks", "breaks", "broken", "unstartable"]
BUILD = yaml.safe_load((ROOT / "playbooks/profiles/standin.yml").read_text())["app_contract"]["build"]


def read(path: Path, name: str) -> str:
    with tarfile.open(path) as tar:
        (member,) = [one for one in tar.getmembers() if one.name.partition("/")[2] == name]
        stream = tar.extractfile(member)
        assert stream
        return stream.read().decode()


def made(directory: Path, *words: str, capsys: Any) -> dict[str, Any]:
    assert maker.main([str(directory), *words]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_variants_and_their_versions_increase(tmp_path: Path, capsys: Any) -> None:
    found = made(tmp_path, capsys=capsys)
    assert list(found) == VARIANTS
    own = (ROOT / "standin/VERSION").read_text().strip()
    front, _, number = own.rpartition(".")
    assert [one["version"] for one in found.values()] == [f"{front}.{int(number) + n}" for n in range(1, 7)]
    for one in found.values():
        assert read(Path(one["path"]), "VERSION").strip() == one["version"]


def test_the_same_sources_make_the_same_bytes(tmp_path: Path, capsys: Any) -> None:
    first = made(tmp_path / "a", "breaks", capsys=capsys)
    os.utime(ROOT / "tests/upgrade/releases/breaks/variant.yml")
    second = made(tmp_path / "b", "breaks", capsys=capsys)
    assert Path(first["breaks"]["path"]).read_bytes() == Path(second["breaks"]["path"]).read_bytes()


def test_a_tarball_is_a_source_that_can_be_built(tmp_path: Path, capsys: Any) -> None:
    from release_shelf import sources

    path = made(tmp_path, "expand", capsys=capsys)["expand"]["path"]
    request = {"source": path, "git_ref": "", "sha256": "", "default_source": "", "version": BUILD["version"]}
    seen = sources.describe({**request, "creates": "", "oldest": ""}, tmp_path / "shelf")
    assert (seen["version"], seen["kind"]) == (maker.version_of(2), "tarball")


def test_a_variant_can_be_based_on_another(tmp_path: Path, capsys: Any) -> None:
    found = made(tmp_path, "broken", "--base", "broken=locks", capsys=capsys)
    assert "stored_by" in read(Path(found["broken"]["path"]), "zerver/models.py")
    assert "This release is broken" in read(Path(found["broken"]["path"]), "zerver/views/health.py")


def test_what_a_work_tree_collects_stays_behind(tmp_path: Path, capsys: Any) -> None:
    with tarfile.open(made(tmp_path, "code", capsys=capsys)["code"]["path"]) as tar:
        names = {member.name.partition("/")[2] for member in tar.getmembers()}
    assert "manage.py" in names
    assert not [name for name in names if name.startswith(("prod-static", ".venv")) or "__pycache__" in name]
    assert "zproject/prod_settings.py" not in names


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["none"], "there is no variant none"),
        (["code", "--base", "code=none"], "names no two variants"),
        (["code", "--base", "code=breaks"], "is based on itself"),
    ],
)
def test_bad_words_are_refused(tmp_path: Path, words: list[str], says: str) -> None:
    program = ROOT / "tests/upgrade/make_releases.py"
    done = subprocess.run([sys.executable, program, tmp_path, *words], capture_output=True, text=True)
    assert done.returncode != 0
    assert says in done.stderr


def test_an_edit_that_no_longer_fits_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("twice twice")
    for text in ("twice", "never"):
        with pytest.raises(SystemExit, match="wants to find this once"):
            maker.edit(path, text, "", "some")


@pytest.mark.parametrize("variant", ["expand", "locks", "breaks"])
def test_models_and_migrations_of_a_variant_agree(releases: Path, variant: str) -> None:
    settings = str(ROOT / "tests/unit/standin/settings.py")
    environment = {**os.environ, "STANDIN_SETTINGS": settings, "DJANGO_SETTINGS_MODULE": "zproject.settings"}
    command = [sys.executable, "-B", "-m", "django", "makemigrations", "--check", "--dry-run"]
    done = subprocess.run(command, cwd=releases / variant, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
