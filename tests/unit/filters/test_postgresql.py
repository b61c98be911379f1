"""Endpoints, memory, the split of parameters, and what a cluster lacks."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

import pytest
from ansible.errors import AnsibleFilterError

from filter_plugins import postgresql

MEMBERS = [{"name": "db1", "address": "10.0.0.1"}, {"name": "db2", "address": "fd00::2"}]


def verifier(password, salt=b"0123456789abcdef", iterations=4096):
    """Return what PostgreSQL keeps for a password (RFC 5803, as in pg_authid)."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    text = [base64.b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256${iterations}:{text[0]}${text[1]}:{text[2]}"


def role(password="secret", login=True, settings=None, member_of=None):
    stored = verifier(password) if password else None
    return {"login": login, "verifier": stored, "settings": settings, "member_of": member_of}


def state(roles=None, databases=None, inside=(), errors=()):
    cluster = {"roles": roles or {}, "databases": databases or {}, "errors": list(errors)}
    return [json.dumps(item) for item in (cluster, *inside)]


USER = {"name": "zulip", "password": "secret", "settings": {"search_path": "zulip,public"}}
DATABASE = {"name": "zulip", "owner": "zulip", "schemas": ["zulip"]}
INSIDE = {"database": "zulip", "schemas": {"zulip": "zulip", "public": "pg_database_owner"}}
COMPLETE = state({"zulip": role(settings=["search_path=zulip, public"])}, {"zulip": "zulip"}, [INSIDE])
NOTHING = {"users": [], "statements": [], "databases": [], "schemas": [], "errors": []}


def test_endpoints_bracket_ipv6():
    assert postgresql.endpoints(MEMBERS, 2379) == ["10.0.0.1:2379", "[fd00::2]:2379"]
    assert postgresql.endpoints(MEMBERS[:1], 2380, "{name}=https://{endpoint}") == ["db1=https://10.0.0.1:2380"]


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        (128, ["32MB", "96MB", "4MB", "64MB"]),
        (2000, ["496MB", "1488MB", "7MB", "248MB"]),
        (16384, ["4096MB", "12288MB", "64MB", "2048MB"]),
        (128000, ["32000MB", "96000MB", "500MB", "2048MB"]),
    ],
)
def test_memory(memory, expected):
    assert list(postgresql.postgresql_memory(memory).values()) == expected


def test_memory_does_not_follow_a_few_pages():
    assert postgresql.postgresql_memory(7900) == postgresql.postgresql_memory(7880)


def test_too_little_memory_is_refused():
    with pytest.raises(AnsibleFilterError, match="128 MB or more"):
        postgresql.postgresql_memory(100)


def test_parameters_go_where_they_take_effect():
    split = postgresql.postgresql_parameters({"max_connections": 5, "work_mem": "4MB", "auto_explain.log_timing": True})
    assert split == {"dcs": {"max_connections": 5}, "host": {"work_mem": "4MB", "auto_explain.log_timing": True}}


@pytest.mark.parametrize("name", ["port", "hba_file", "Work_Mem", "a b"])
def test_parameters_that_cannot_be_given(name):
    with pytest.raises(AnsibleFilterError, match=name):
        postgresql.postgresql_parameters({name: 1})


@pytest.mark.parametrize(("value", "text"), [(True, "on"), (False, "off"), (3, "3"), (1.1, "1.1"), ("it's", "'it''s'")])
def test_values(value, text):
    assert postgresql.postgresql_value(value) == text


def test_a_complete_cluster_lacks_nothing():
    assert postgresql.postgresql_pending(COMPLETE, [USER], [DATABASE]) == NOTHING


def test_an_empty_cluster_lacks_everything():
    assert postgresql.postgresql_pending(state(), [USER], [DATABASE]) == {
        "users": [USER],
        "statements": ['ALTER ROLE "zulip" SET search_path = "zulip", "public"'],
        "databases": [DATABASE],
        "schemas": [{"database": "zulip", "name": "zulip", "owner": "zulip"}],
        "errors": [],
    }


@pytest.mark.parametrize("found", [role("other"), role(None), role(login=False), {**role(), "verifier": "md5abc"}])
def test_a_role_with_another_password_or_none_is_corrected(found):
    pending = postgresql.postgresql_pending(state({"zulip": found}), [{"name": "zulip", "password": "secret"}], [])
    assert [user["name"] for user in pending["users"]] == ["zulip"]


def test_a_run_that_was_killed_before_the_schema_goes_on_there():
    found = state({"zulip": role(settings=["search_path=zulip, public"])}, {"zulip": "zulip"})
    pending = postgresql.postgresql_pending(found, [USER], [DATABASE])
    assert pending == {**NOTHING, "schemas": [{"database": "zulip", "name": "zulip", "owner": "zulip"}]}


def test_other_settings_are_compared_and_quoted():
    user = {"name": "app", "password": "secret", "settings": {"work_mem": "8MB", "jit": False}}
    found = state({"app": role(settings=["work_mem=4MB", "jit=off"])})
    assert postgresql.postgresql_pending(found, [user], [])["statements"] == ["ALTER ROLE \"app\" SET work_mem = '8MB'"]


MONITOR = {"name": "monitor", "password": "secret", "grants": ["pg_monitor", "pg_read_all_data"]}


@pytest.mark.parametrize(
    ("member_of", "missing"),
    [
        (None, ["pg_monitor", "pg_read_all_data"]),
        (["pg_monitor"], ["pg_read_all_data"]),
        (["pg_read_all_data", "pg_monitor", "more"], []),
    ],
)
def test_a_role_becomes_a_member_of_what_it_is_not_yet(member_of, missing):
    found = state({"monitor": role(member_of=member_of)})
    expected = [f'GRANT "{group}" TO "monitor"' for group in missing]
    assert postgresql.postgresql_pending(found, [MONITOR], []) == {**NOTHING, "statements": expected}


def test_a_new_role_becomes_a_member_after_it_was_made():
    pending = postgresql.postgresql_pending(state(), [MONITOR], [])
    assert [user["name"] for user in pending["users"]] == ["monitor"]
    assert pending["statements"] == ['GRANT "pg_monitor" TO "monitor"', 'GRANT "pg_read_all_data" TO "monitor"']


def test_a_role_of_an_odd_name_is_quoted():
    user = {"name": 'a"b', "password": "secret", "grants": ["c d"]}
    found = state({'a"b': role()})
    assert postgresql.postgresql_pending(found, [user], [])["statements"] == ['GRANT "c d" TO "a""b"']


def hba(*users, databases=(DATABASE,), addresses=("10.0.0.1", "fd00::2")):
    return postgresql.postgresql_hba(users, databases, addresses)


def test_a_role_comes_in_to_all_databases_from_all_clients():
    assert hba(USER) == [
        "hostssl zulip zulip 10.0.0.1/32 scram-sha-256",
        "hostssl zulip zulip fd00::2/128 scram-sha-256",
    ]


def test_a_role_with_databases_and_addresses_of_its_own():
    own = {**MONITOR, "databases": ["zulip", "postgres"], "addresses": ["10.0.0.3", "10.1.0.0/16"]}
    assert hba(own) == [
        "hostssl zulip,postgres monitor 10.0.0.3/32 scram-sha-256",
        "hostssl zulip,postgres monitor 10.1.0.0/16 scram-sha-256",
    ]


def test_no_line_is_there_twice():
    own = {**MONITOR, "databases": ["zulip", "zulip"], "addresses": ["10.0.0.3", "10.0.0.3", "10.0.0.3/32"]}
    assert hba(own, own) == ["hostssl zulip monitor 10.0.0.3/32 scram-sha-256"]


@pytest.mark.parametrize("nothing", [{"databases": []}, {"addresses": []}])
def test_a_role_with_nowhere_to_go_has_no_line(nothing):
    assert hba({**USER, **nothing}) == []
    assert hba({**USER, "databases": None, "addresses": None}) == hba(USER)


def test_words_of_pg_hba_are_names_when_they_are_ours():
    odd = {"name": "My-User", "databases": ["all", "replication", "all_of_it"], "addresses": ["10.0.0.1"]}
    assert hba(odd) == ['hostssl "all","replication",all_of_it "My-User" 10.0.0.1/32 scram-sha-256']


def test_errors_of_the_files_are_passed_on():
    assert postgresql.postgresql_pending(state(errors=["line 3"]), [], [])["errors"] == ["line 3"]


def test_a_tsearch_file():
    file = postgresql.postgresql_file({"key": "a.stop", "value": "the\n"}, "/usr/share/d")
    assert file == {"path": "/usr/share/d/a.stop", "content": "the\n", "variable": "postgresql_tsearch_files"}
