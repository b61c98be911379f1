"""What was typed, whether an archive fits here, and which secrets come along."""

from __future__ import annotations

import pytest

from filter_plugins import import_backup as filters

FOUND = {
    "zulip-version": "8.4\n8.4-1-gabc",
    "os-version": "debian 12",
    "postgres-version": "150004",
    "bytes": 1000,
    "dump": {"toc": True, "bytes": 800, "raw": 4000, "rows": {"12": 2, "13": 0}},
    "uploads": {"files": 2, "bytes": 14, "skipped": 0},
}
LOOK = {"there": True, "pg_restore": 15, "kept": [], "bytes": 5, "extensions": ["plpgsql", "pg_trgm"]}


def with_(base: dict, **values) -> dict:
    return {**base, **values}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "say which archive"),
        ({"archive": "/nonexistent.tar.gz"}, "no file /nonexistent.tar.gz"),
        ({"archive": __file__}, "-e confirm=site"),
        ({"archive": __file__, "confirm": "other"}, "all that the site has now"),
        ({"archive": __file__, "confirm": "site", "limit": "a1"}, "leave --limit away"),
        ({"archive": __file__, "confirm": "site", "secrets": "all"}, "secrets is vault, show or keep, not all"),
        ({"action": "undo", "confirm": "site"}, "action is import, back or forget_old, not undo"),
        ({"action": "back"}, "what was written since"),
        ({"action": "forget_old"}, "is deleted"),
    ],
)
def test_what_cannot_begin(given, says):
    assert says in filters.import_options_problem({"site": "site", **given})


@pytest.mark.parametrize("given", [{"archive": __file__}, {"action": "back"}, {"action": "forget_old"}])
def test_what_can_begin(given):
    assert filters.import_options_problem({"site": "site", "confirm": "site", **given}) == ""


def test_a_site_without_a_name_is_never_confirmed():
    assert filters.import_options_problem({"site": "", "confirm": "", "action": "back"})


@pytest.mark.parametrize("running", ["8.4", "8.5", "9.0", "12.4"])
def test_an_archive_of_this_release_or_an_older_one_fits(running):
    assert filters.import_archive_problem(FOUND, running, LOOK) == ""


@pytest.mark.parametrize(
    ("found", "look", "says"),
    [
        ({"zulip-version": "9.1"}, {}, "it is of 9.1 and the site runs 8.4: upgrade the site first"),
        ({"zulip-version": ""}, {}, "does not say which release"),
        ({"zulip-version": "main"}, {}, "is no version"),
        ({"postgres-version": "170001"}, {}, "PostgreSQL 17 and this site has 15"),
        ({"dump": {"toc": False, "rows": {}}}, {}, "no dump of the database"),
        ({"dump": {"toc": True, "rows": {"1": None}}}, {}, "has no end"),
        ({}, {"there": False}, "run site.yml first"),
    ],
)
def test_an_archive_that_does_not_fit(found, look, says):
    assert says in filters.import_archive_problem(with_(FOUND, **found), "8.4", with_(LOOK, **look))


def test_uploads_do_not_go_to_s3_by_themselves():
    assert "uploads_to_s3.yml" in filters.import_archive_problem(FOUND, "8.4", LOOK, "s3")
    none = with_(FOUND, uploads={"files": 0, "bytes": 0, "skipped": 0})
    assert filters.import_archive_problem(none, "8.4", LOOK, "s3") == ""


def test_a_dump_needs_its_extensions_and_all_its_data():
    checked = {"extensions": ["pgroonga"], "tables": {"12": "zulip.a", "13": "zulip.b"}}
    assert "extension pgroonga" in filters.import_dump_problem(checked, LOOK, FOUND)
    checked["extensions"] = ["pg_trgm"]
    assert filters.import_dump_problem(checked, LOOK, FOUND) == ""
    checked["tables"]["14"] = "zulip.zerver_message"
    assert filters.import_dump_problem(checked, LOOK, FOUND) == "the dump has no data of zulip.zerver_message"


def needs(*where: bool, uploads: str = "/home/zulip/uploads") -> dict[str, int]:
    return {need["path"]: need["bytes"] for need in filters.import_needs(FOUND, *where, uploads)}


def test_room_is_asked_for_where_it_is_needed():
    second = 10_000 + (1 << 30)
    copy = 1000 + (1 << 28)
    assert needs(True, True, False) == {"/var/lib/postgresql": second + 1800, "/var/lib/zulip-ha": copy}
    assert needs(False, True, False) == {"/var/lib/postgresql": second}
    assert needs(False, False, True) == {"/var/lib/zulip-ha": copy, "/home/zulip/uploads": 1014}
    assert needs(False, False, True, uploads="") == {}
    assert set(needs(True, True, True)) == {"/var/lib/postgresql", "/var/lib/zulip-ha", "/home/zulip/uploads"}


def test_secrets_that_the_database_depends_on_come_along():
    archive = {"avatar_salt": "a", "secret_key": "k", "camo_key": "", "shared_secret": "s", "rabbitmq_password": "p"}
    due = filters.import_secrets(archive, {"avatar_salt": "a", "secret_key": "ours", "shared_secret": "o"})
    assert due == {"secret_key": "k"}
    assert filters.import_vault({"secret_key": "k", "zulip_org_id": "i"}) == {
        "vault_zulip_secret_key": "k",
        "vault_zulip_org_id": "i",
    }


@pytest.mark.parametrize(
    ("choice", "own", "says"),
    [
        ("", {}, "-e secrets=vault"),
        ("show", {}, "everybody logs in again"),
        ("vault", {"secret_key": "x"}, "zulip_secrets"),
        ("vault", {"email_password": "x"}, ""),
        ("keep", {}, ""),
    ],
)
def test_nothing_goes_on_before_somebody_decided_about_secrets(choice, own, says):
    problem = filters.import_secrets_problem({"secret_key": "SECRET"}, choice, own)
    assert says in problem
    assert bool(says) is bool(problem)
    assert "SECRET" not in problem


@pytest.mark.parametrize("choice", ["", "vault", "show", "keep"])
def test_equal_secrets_are_no_question(choice):
    assert filters.import_secrets_problem({}, choice, {}) == ""


def test_the_plan_says_what_changes():
    text = "\n".join(filters.import_plan(FOUND, with_(LOOK, kept=["zulip_before_1"]), "9.0"))
    for words in ("Zulip 8.4", "PostgreSQL 15", "2 rows", "2 files", "migrations up to 9.0", "zulip_before_1"):
        assert words in text
    assert "migrations" not in "\n".join(filters.import_plan(FOUND, LOOK, "8.4"))
