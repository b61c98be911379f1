"""What migration_plan says of the test releases, with and without a database."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plugin_utils.application.migrations import migrations_judgement

from .conftest import Site

SINCE = ["--offline", "--since", "zerver=0002"]


def names(plan: dict[str, Any]) -> list[str]:
    return [f"{about['app']}.{about['name']}" for about in plan["pending"]]


def verdicts(plan: dict[str, Any]) -> dict[str, str]:
    return {about["name"][:4]: about["verdict"] for about in plan["pending"]}


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ("code", {}),
        ("expand", {"0003": "expand"}),
        ("locks", {"0003": "expand", "0004": "expand"}),
        ("breaks", {"0003": "expand", "0004": "expand", "0005": "breaks"}),
        ("broken", {}),
        ("unstartable", {}),
    ],
)
def test_the_test_releases_are_what_they_are_named(
    make_site: Callable[[], Site], variant: str, expected: dict[str, str]
) -> None:
    plan = make_site().plan(variant, *SINCE)
    assert verdicts(plan) == expected
    assert migrations_judgement(plan)["rolling"] is ("breaks" not in expected.values())


def test_without_a_database_the_start_is_named(make_site: Callable[[], Site]) -> None:
    site = make_site()
    assert not site.plan("breaks", "--offline")["pending"]
    assert verdicts(site.plan("breaks", "--offline", "--since", "zerver=0004_message_stored_by")) == {"0005": "breaks"}
    assert verdicts(site.plan("", "--offline", "--since", "zerver=zero")) == {"0001": "expand", "0002": "unknown"}


def test_the_database_says_what_is_pending_and_what_only_another_release_knows(site: Site) -> None:
    assert site.plan("")["pending"] == []
    assert verdicts(site.plan("breaks")) == {"0003": "expand", "0004": "expand", "0005": "breaks"}
    assert site.migrate("locks").returncode == 0
    newer = site.plan("breaks")
    assert (verdicts(newer), newer["applied_unknown"]) == ({"0005": "breaks"}, [])
    older = site.plan("code")
    assert older["pending"] == []
    assert older["applied_unknown"] == ["zerver.0003_stream_created_in", "zerver.0004_message_stored_by"]
    assert older["applied"]["zerver"] == 4


def test_migrations_are_described_that_are_applied(site: Site) -> None:
    assert site.migrate("breaks").returncode == 0
    unknown = site.plan("expand")["applied_unknown"]
    plan = site.plan("breaks", "--describe", *unknown, "zerver.0009_gone")
    assert names(plan) == unknown
    assert verdicts(plan) == {"0004": "expand", "0005": "breaks"}
    assert plan["missing"] == ["zerver.0009_gone"]


def test_an_empty_database_has_everything_pending(make_site: Callable[[], Site]) -> None:
    plan = make_site().plan("")
    assert plan["applied"] == {}
    assert {"auth", "contenttypes", "sessions", "zerver"} == {about["app"] for about in plan["pending"]}


SQUASHED = """
from django.db import migrations, models
class Migration(migrations.Migration):
    replaces = [("zerver", "0001_initial"), ("zerver", "0002_full_text_search")]
    initial = True
    dependencies = []
    operations = [migrations.RunSQL("SELECT 1")]
"""


def test_a_squashed_migration_of_what_was_applied_is_nothing_new(site: Site, tmp_path: Path) -> None:
    """Only the newer release knows its name, which Django notes down although nothing has been done."""
    tree = tmp_path / "squashed"
    shutil.copytree(site.tree("code"), tree)
    (tree / "zerver/migrations/0001_squashed_0002.py").write_text(SQUASHED)
    site.releases = tmp_path
    assert site.plan("squashed")["pending"] == []
    assert site.migrate("squashed").returncode == 0
    unknown = site.plan("")["applied_unknown"]
    assert unknown == ["zerver.0001_squashed_0002"]
    assert verdicts(site.plan("squashed", "--describe", *unknown)) == {"0001": "expand"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--offline", "--since", "zerver=0099"], "has not one migration of that name"),
        (["--offline", "--since", "else=0001"], "no app else with migrations"),
        (["--since", "zerver=0001"], "--since goes with --offline"),
        (["--describe", "zerver"], "is named APP.NAME"),
    ],
)
def test_bad_words_are_refused_in_one_line(make_site: Callable[[], Site], words: list[str], says: str) -> None:
    done = make_site().program("migration_plan", "", *words)
    assert done.returncode != 0
    assert says in done.stderr.splitlines()[-1]
    assert done.stdout == ""


def test_what_the_release_prints_does_not_get_into_the_answer(site: Site) -> None:
    site.settings.write_text(site.settings.read_text() + "print('loading settings')\n")
    assert site.plan("")["pending"] == []


def test_sessions_only_read(site: Site) -> None:
    site.settings.write_text(
        site.settings.read_text() + "import os, sys\nprint(os.environ['PGOPTIONS'], file=sys.stderr)\n"
    )
    done = site.program("migration_plan", "")
    assert "-c default_transaction_read_only=on" in done.stderr
