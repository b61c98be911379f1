"""The repository's version, its breaking changes, and the inventories that know of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from plugin_utils.validation import known, stamp

ROOT = Path(__file__).resolve().parents[3]
CHANGES = [
    {"since": "0.2.0", "what": "a is b", "do": "rename a"},
    {"since": "0.10.0", "what": "c is gone", "do": "drop c"},
]


def problems(acknowledged: object, version: str = "0.10.1") -> list[str]:
    return list(stamp.version_problems(acknowledged, version, CHANGES, "50-site.yml:3"))


@pytest.mark.parametrize("acknowledged", ["0.10", "0.10.0", "0.10.1"])
def test_an_inventory_that_knows_all_passes(acknowledged):
    assert problems(acknowledged) == []


def test_an_older_one_is_told_what_is_newer_in_one_line():
    (line,) = problems("0.9")
    assert line.startswith("50-site.yml:3: since 0.9; ".replace("; ", " "))
    assert "0.10.0: c is gone -> drop c" in line
    assert "a is b" not in line
    assert 'set `site_acknowledged_version: "0.10"` in 50-site.yml' in line
    assert "\n" not in line


@pytest.mark.parametrize("acknowledged", ["", None])
def test_one_that_says_nothing_is_left_alone(acknowledged):
    assert problems(acknowledged) == []


def test_a_newer_one_is_refused_by_an_older_checkout():
    (line,) = problems("0.11")
    assert "made for version 0.11 of this repository, and this is 0.10.1" in line


@pytest.mark.parametrize("acknowledged", ["x", "0.4-beta", "1.2.3.4", "0."])
def test_what_is_no_version_is_refused(acknowledged):
    (line,) = problems(acknowledged)
    assert "write a version" in line


def test_without_breaking_changes_nothing_is_asked():
    assert list(stamp.version_problems("", "1.0.0", [], "x")) == []
    assert list(stamp.version_problems("", "", [], "x")) == []


def test_versions_are_compared_by_number():
    assert stamp.parts("0.10") > stamp.parts("0.9.9")
    assert stamp.parts("1") == stamp.parts("1.0.0")


def test_a_version_is_shown_short():
    assert [stamp.short(text) for text in ("0.4.0", "0.4.1", "0.4", "1.0")] == ["0.4", "0.4.1", "0.4", "1.0"]


# ---- what is in the repository


def test_the_repository_has_a_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+", stamp.read_version(ROOT))


def test_each_breaking_change_is_complete_and_of_a_version_that_is_there():
    version = stamp.parts(stamp.read_version(ROOT))
    for change in known.read(ROOT).breaking:
        assert set(change) == {"since", "what", "do"}, change
        assert stamp.parts(change["since"]) <= version, "raise VERSION"
        assert not change["what"].endswith("."), change
        assert "\n" not in change["what"] + change["do"], change


def test_breaking_changes_are_in_order():
    versions = [stamp.parts(change["since"]) for change in known.read(ROOT).breaking]
    assert versions == sorted(versions)


def test_the_changelog_has_the_versions_with_breaking_changes():
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    newest = stamp.read_version(ROOT)
    for change in known.read(ROOT).breaking:
        # The one that is being made may still be called `Unreleased`.
        assert change["since"] in headings or (change["since"] == newest and "Unreleased" in headings), change["since"]


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "inventories").iterdir() if path.is_dir()))
def test_the_inventories_of_the_repository_know_of_all(name):
    values = yaml.safe_load((ROOT / f"inventories/{name}/group_vars/all/50-site.yml").read_text())
    read = known.read(ROOT)
    found = list(stamp.version_problems(values[stamp.VALUE], stamp.read_version(ROOT), read.breaking, name))
    assert found == []
