"""The verdict on each kind of operation, as PostgreSQL and older code see it. No database is asked."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.postgres.functions import RandomUUID
from django.contrib.postgres.operations import AddIndexConcurrently, RemoveIndexConcurrently
from django.db import migrations, models
from django.db.backends.postgresql.base import DatabaseWrapper
from django.db.models.functions import Now

# Django wants settings: those that the stand-in's tests have, because a process has one.
import tests.unit.standin.conftest  # noqa: F401
from tests.unit.app.paths import load_program

plan = load_program("roles/app/files/migration_plan", "migration_plan")

SETTINGS = {"NAME": "none", "USER": "", "PASSWORD": "", "HOST": "", "PORT": "", "OPTIONS": {}, "TIME_ZONE": None}
SETTINGS |= {"CONN_MAX_AGE": 0, "CONN_HEALTH_CHECKS": False, "AUTOCOMMIT": True, "ATOMIC_REQUESTS": False}


def char(length: int | None = 20, **options: Any) -> models.Field:
    return models.CharField(max_length=length, **options)


def key() -> models.Field:
    return models.AutoField(primary_key=True)


def link(to: str = "app.Room", **options: Any) -> models.Field:
    return models.ForeignKey(to, on_delete=models.CASCADE, **options)


class Before(migrations.Migration):
    """What older code knows."""

    operations = [
        migrations.CreateModel("Room", [("id", key()), ("name", char(unique=True))]),
        migrations.CreateModel("Hall", [("id", models.BigAutoField(primary_key=True))]),
        migrations.CreateModel("Named", [("id", key())], {"db_table": "named"}),
        migrations.CreateModel("Foreign", [("id", key())], {"managed": False}),
        migrations.CreateModel(
            "Talk",
            [
                ("id", key()),
                ("room", link()),
                ("title", char()),
                ("maybe", char(null=True)),
                ("filled", char(db_default="x")),
                ("number", models.IntegerField()),
                ("column", char(db_column="own")),
                ("flag", models.BooleanField(default=False)),
                ("price", models.DecimalField(max_digits=6, decimal_places=2)),
                ("rooms", models.ManyToManyField("app.Room", related_name="+")),
            ],
            {"unique_together": {("room", "title")}},
        ),
    ]


def migration(*operations: Any, atomic: bool = True) -> migrations.Migration:
    made = migrations.Migration("0002_x", "app")
    made.operations, made.atomic = list(operations), atomic
    return made


def judged(*operations: Any) -> dict[str, Any]:
    """Judge a migration after the one above."""
    judge = plan.Judge(DatabaseWrapper(SETTINGS, "default"))
    judge.skip(Before("0001_initial", "app"))
    return judge.migration(migration(*operations))


def add(field: models.Field, name: str = "new") -> Any:
    return migrations.AddField("talk", name, field)


def alter(name: str, field: models.Field) -> Any:
    return migrations.AlterField("talk", name, field)


def unique(*fields: str, **options: Any) -> Any:
    return migrations.AddConstraint("talk", models.UniqueConstraint(fields=fields, name="c", **options))


def positive() -> Any:
    constraint = models.CheckConstraint(name="c", **{CHECK: models.Q(number__gt=0)})
    return migrations.AddConstraint("talk", constraint)


CHECK = "condition" if "condition" in models.CheckConstraint.__init__.__code__.co_varnames else "check"
NEW = migrations.CreateModel("New", [("id", key()), ("text", char())])
CASES: list[tuple[str, list[Any]]] = [
    ("expand", [NEW]),
    ("expand", [NEW, migrations.AddField("new", "more", char()), migrations.RemoveField("new", "text")]),
    ("expand", [NEW, migrations.RenameModel("New", "Newer"), migrations.AlterField("newer", "text", char(3))]),
    ("expand", [NEW, migrations.RenameField("new", "text", "words"), migrations.DeleteModel("New")]),
    ("expand", [NEW, migrations.AlterUniqueTogether("new", {("id", "text")}), migrations.AlterModelTable("new", "n")]),
    ("expand", [migrations.CreateModel("Proxy", [], {"proxy": True}, bases=("app.talk",))]),
    ("breaks", [migrations.DeleteModel("Talk")]),
    ("expand", [migrations.DeleteModel("Foreign")]),
    ("breaks", [migrations.RenameModel("Talk", "Speech")]),
    ("expand", [migrations.RenameModel("Named", "Called")]),
    ("breaks", [migrations.AlterModelTable("talk", "speech")]),
    ("expand", [migrations.AlterModelTable("talk", "app_talk")]),
    ("expand", [add(char(null=True))]),
    ("expand", [add(char(db_default="x"))]),
    ("expand", [add(models.DateTimeField(db_default=Now()))]),
    ("breaks", [add(char(default="x"))]),
    ("breaks", [add(models.BooleanField(default=False))]),
    ("breaks", [add(char(unique=True, db_default="x"))]),
    ("breaks", [add(char(unique=True, db_default=models.Value("x")))]),
    ("expand", [add(models.UUIDField(unique=True, db_default=RandomUUID()))]),
    ("expand", [add(char(unique=True, null=True))]),
    ("expand", [add(models.OneToOneField("app.Room", models.CASCADE, null=True, related_name="+"))]),
    ("expand", [add(models.ManyToManyField("app.Room", related_name="+"))]),
    ("expand", [add(char(null=True)), migrations.RemoveField("talk", "new")]),
    (
        "expand",
        [add(char(null=True)), migrations.RenameField("talk", "new", "newer"), alter("newer", char(9, null=True))],
    ),
    ("expand", [add(char(null=True)), unique("room", "new")]),
    ("breaks", [add(char(null=True)), unique("room", "new", nulls_distinct=False)]),
    ("breaks", [add(char(null=True)), alter("new", char())]),
    ("expand", [add(char(null=True)), alter("new", char(db_default="x"))]),
    ("expand", [migrations.AddField("foreign", "new", char())]),
    ("breaks", [migrations.RemoveField("talk", "title")]),
    ("breaks", [migrations.RemoveField("talk", "rooms")]),
    ("breaks", [migrations.RenameField("talk", "title", "name")]),
    ("breaks", [migrations.RenameField("talk", "rooms", "places")]),
    ("expand", [migrations.RenameField("talk", "column", "pillar")]),
    ("expand", [alter("title", char(30))]),
    ("expand", [alter("title", char(None))]),
    ("expand", [alter("title", models.TextField())]),
    ("expand", [alter("title", char(help_text="else", choices=[("a", "A")], default="a"))]),
    ("breaks", [alter("title", char(10))]),
    ("breaks", [alter("title", models.IntegerField())]),
    ("breaks", [alter("title", char(unique=True))]),
    ("expand", [migrations.AlterField("room", "name", char())]),
    ("expand", [alter("title", char(null=True))]),
    ("breaks", [alter("maybe", char())]),
    ("breaks", [alter("maybe", char(db_default="x"))]),
    ("breaks", [alter("filled", char())]),
    ("expand", [alter("filled", char(db_default="y"))]),
    ("breaks", [alter("title", char(db_column="else"))]),
    ("unknown", [alter("title", char(db_collation="C"))]),
    ("expand", [alter("title", char(db_index=True))]),
    ("expand", [alter("number", models.BigIntegerField())]),
    ("breaks", [alter("number", models.SmallIntegerField())]),
    ("breaks", [alter("number", models.PositiveIntegerField())]),
    ("expand", [alter("id", models.BigAutoField(primary_key=True))]),
    ("breaks", [alter("number", models.IntegerField(primary_key=True))]),
    ("breaks", [alter("id", models.IntegerField(unique=True))]),
    ("expand", [alter("price", models.DecimalField(max_digits=8, decimal_places=3))]),
    ("breaks", [alter("price", models.DecimalField(max_digits=6, decimal_places=3))]),
    ("expand", [alter("room", link(null=True))]),
    ("expand", [alter("room", link(db_constraint=False))]),
    ("breaks", [alter("room", link("app.Hall"))]),
    ("expand", [alter("rooms", models.ManyToManyField("app.Room", related_name="+", blank=True))]),
    ("breaks", [alter("rooms", models.ManyToManyField("app.Room", related_name="+", db_table="places"))]),
    ("expand", [migrations.AddIndex("talk", models.Index(fields=["title"], name="i"))]),
    ("expand", [AddIndexConcurrently("talk", models.Index(fields=["title"], name="i"))]),
    (
        "expand",
        [
            AddIndexConcurrently("talk", models.Index(fields=["title"], name="i")),
            migrations.RenameIndex("talk", "j", old_name="i"),
            RemoveIndexConcurrently("talk", "j"),
        ],
    ),
    ("breaks", [unique("number")]),
    ("expand", [unique("title", "room", "number")]),
    ("breaks", [positive()]),
    ("expand", [migrations.AlterUniqueTogether("talk", set())]),
    ("breaks", [migrations.AlterUniqueTogether("talk", {("room", "number")})]),
    ("expand", [migrations.AlterUniqueTogether("talk", {("room", "title"), ("room", "title", "number")})]),
    ("breaks", [migrations.AlterOrderWithRespectTo("talk", "room")]),
    ("expand", [migrations.AlterModelOptions("talk", {"ordering": ["title"]})]),
    ("unknown", [migrations.RunPython(lambda apps, editor: None)]),
    ("expand", [migrations.RunPython(migrations.RunPython.noop, lambda apps, editor: None)]),
    ("unknown", [migrations.RunPython(lambda apps, editor: None, elidable=True)]),
    ("unknown", [migrations.RunSQL("SELECT 1")]),
    ("expand", [migrations.RunSQL(migrations.RunSQL.noop, "SELECT 1")]),
    ("breaks", [migrations.RunSQL("SELECT 1"), migrations.RemoveField("talk", "title")]),
    ("expand", [migrations.SeparateDatabaseAndState(state_operations=[migrations.RemoveField("talk", "title")])]),
    ("breaks", [migrations.SeparateDatabaseAndState([migrations.RemoveField("talk", "title")], [])]),
    (
        "breaks",
        [
            migrations.SeparateDatabaseAndState([migrations.RenameField("talk", "column", "pillar")], []),
            migrations.RemoveField("talk", "column"),
        ],
    ),
    # Of a table that is only known under another name nothing is new.
    (
        "breaks",
        [
            migrations.SeparateDatabaseAndState(
                state_operations=[migrations.CreateModel("Again", [("id", key())], {"db_table": "named"})]
            ),
            migrations.AddField("again", "new", char()),
        ],
    ),
    ("expand", []),
]


@pytest.mark.parametrize(
    ("verdict", "operations"),
    CASES,
    ids=[f"{n}-{'-'.join(type(o).__name__ for o in c[1])}" for n, c in enumerate(CASES)],
)
def test_verdicts(verdict: str, operations: list[Any]) -> None:
    found = judged(*operations)
    assert found["verdict"] == verdict, found["operations"]
    assert all(one["why"] for one in found["operations"])


class Strange(migrations.operations.base.Operation):
    def state_forwards(self, app_label: str, state: Any) -> None:
        pass

    def describe(self) -> str:
        return "something\nelse"


class Shy(migrations.RemoveField):
    """One that a release brings for itself."""


def test_an_operation_of_its_own_kind_is_unknown_and_a_kind_of_a_known_one_is_known() -> None:
    found = judged(Strange(), Shy("talk", "title"))
    assert [(one["kind"], one["verdict"]) for one in found["operations"]] == [("Strange", "unknown"), ("Shy", "breaks")]
    assert found["operations"][0]["detail"] == "something else"


@pytest.mark.parametrize(
    ("operation", "locks"),
    [
        (
            migrations.AddIndex("talk", models.Index(fields=["title"], name="i")),
            "app_talk takes no writes while i is built",
        ),
        (AddIndexConcurrently("talk", models.Index(fields=["title"], name="i")), ""),
        (alter("number", models.BigIntegerField()), "app_talk is locked while it is written anew"),
        (alter("title", char(30)), ""),
        (add(char(null=True)), ""),
        (add(link(null=True)), "app_talk is locked while the index of new_id is built"),
        (alter("maybe", char()), "app_talk is locked while it is read through"),
    ],
)
def test_what_users_wait_for_is_said(operation: Any, locks: str) -> None:
    assert [one["locks"] for one in judged(operation)["operations"]] == [locks]


def test_sizes_are_added_to_what_users_wait_for() -> None:
    sizes = {"app_talk": 12_345_678, "app": 1}
    assert plan.with_sizes("app_talk is locked", sizes) == "app_talk (12.3 MB) is locked"
    assert plan.with_sizes("", sizes) == ""


def test_a_description_names_model_and_reason() -> None:
    (found,) = judged(migrations.RemoveField("talk", "title"))["operations"]
    assert found == {
        "kind": "RemoveField",
        "model": "talk",
        "detail": "Remove field title from talk",
        "verdict": "breaks",
        "why": "drops the column title",
        "locks": "",
    }
