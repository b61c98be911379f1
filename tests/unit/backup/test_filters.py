"""Filters for backups: pgBackRest's options of each host, whose a repository is, and how old the last backup is."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from filter_plugins import backup

POSIX = {"type": "posix", "path": "/srv/pgbackrest"}
S3 = {
    "type": "s3",
    "bucket": "b",
    "endpoint": "https://s3.example.com:9000",
    "region": "us-east-1",
    "key": "k",
    "key_secret": "s",
}
PLACES = [{"number": 1, "type": "posix", "place": "mon1:/srv"}]
CLUSTER = {"system_id": "70", "version": "15"}


def site(here: str, **changes: Any) -> dict[str, Any]:
    return {
        "here": here,
        "repository_host": "mon.1",
        "members": [{"name": "db_1"}, {"name": "db2"}],
        "repositories": [POSIX],
        "stanza": "chat",
        "cipher_pass": "secret",
        "retention_full": 4,
        "retention_diff": 7,
        "pki": "/pki",
        "port": 8432,
        "ipv6": False,
        "data_directory": "/data",
        "postgresql_port": 5432,
        "queue_max": "1024MiB",
        "process_max": 2,
        "archive_process_max": 2,
        "compress_type": "zst",
        "compress_level": 3,
        "spool": "/spool",
        "settings": {},
    } | changes


def options(here: str, section: str = "global", **changes: Any) -> dict[str, str]:
    sections = {entry["name"]: entry["options"] for entry in backup.pgbackrest_configuration(site(here, **changes))}
    return dict(sections[section])


def names(here: str, **changes: Any) -> list[str]:
    return [
        f"{name}={value}"
        for entry in backup.pgbackrest_configuration(site(here, **changes))
        for name, value in entry["options"]
    ]


def test_a_database_host_knows_the_way_to_the_repository_and_neither_its_path_nor_its_key():
    found = options("db_1")
    assert (found["repo1-host"], found["repo1-host-type"], found["repo1-host-port"]) == ("mon.1", "tls", "8432")
    assert not [name for name in found if "cipher" in name or "retention" in name or name == "repo1-path"]
    assert options("db_1", "chat") == {
        "pg1-path": "/data",
        "pg1-port": "5432",
        "pg1-socket-path": "/var/run/postgresql",
    }
    assert found["tls-server-auth"] == "mon.1=chat"


def test_the_backup_host_knows_all_databases_and_lets_them_in():
    found = options("mon.1")
    assert (found["repo1-path"], found["repo1-cipher-pass"]) == ("/srv/pgbackrest", "secret")
    assert found["repo1-cipher-type"] == "aes-256-cbc"
    assert (found["repo1-retention-full"], found["repo1-retention-diff"], found["repo1-bundle"]) == ("4", "7", "y")
    databases = options("mon.1", "chat")
    assert (databases["pg1-host"], databases["pg2-host"]) == ("db_1", "db2")
    auth = [line for line in names("mon.1") if line.startswith("tls-server-auth")]
    assert auth == ["tls-server-auth=db_1=chat", "tls-server-auth=db2=chat"]


def test_a_database_on_the_backup_host_is_local_and_first():
    databases = options("db2", "chat", repository_host="db2")
    assert "pg1-host" not in databases
    assert databases["pg2-host"] == "db_1"
    assert "repo1-host" not in options("db2", repository_host="db2")


def test_a_single_host_has_no_server_and_asks_nobody():
    single = {"repository_host": "solo", "members": [{"name": "solo"}]}
    assert not [line for line in names("solo", **single) if "tls-server" in line or "-host" in line]
    assert not backup.backup_servers(site("solo", **single))


def test_with_s3_alone_the_backup_host_needs_no_server_and_the_database_hosts_have_the_keys():
    only = {"repositories": [S3]}
    assert not backup.backup_servers(site("mon.1", **only))
    assert backup.backup_servers(site("db2", **only))
    found = options("db_1", **only)
    assert (found["repo1-type"], found["repo1-s3-endpoint"], found["repo1-storage-port"]) == (
        "s3",
        "s3.example.com",
        "9000",
    )
    assert (found["repo1-s3-uri-style"], found["repo1-path"], found["repo1-s3-key"]) == ("path", "/pgbackrest", "k")
    assert found["repo1-cipher-pass"] == "secret"
    assert "repo1-retention-full" not in found
    assert "repo1-host" not in found


def test_a_second_repository_has_its_own_number_and_retention():
    found = options("mon.1", repositories=[POSIX, S3 | {"retention_full": 2, "verify": False, "ca_file": "/ca"}])
    assert (found["repo2-type"], found["repo2-retention-full"]) == ("s3", "2")
    assert (found["repo2-storage-verify-tls"], found["repo2-storage-ca-file"]) == ("n", "/ca")


def test_an_operators_setting_replaces_the_computed_one():
    lines = names("db_1", settings={"compress-level": 9, "archive-async": False, "sck-keep-alive": True})
    assert lines.count("compress-level=9") == 1
    assert "compress-level=3" not in lines
    assert {"archive-async=n", "sck-keep-alive=y"} <= set(lines)


def test_a_value_of_several_lines_is_refused():
    with pytest.raises(AnsibleFilterError, match="more than one line"):
        backup.pgbackrest_configuration(site("db_1", settings={"a": "b\nrepo1-path=/x"}))


def test_what_waits_while_postgresql_stops_is_short():
    assert options("db_1", "global:archive-push")["archive-timeout"] == "5"
    assert options("db_1")["archive-push-queue-max"] == "1024MiB"


def test_places_carry_no_secret():
    assert backup.backup_places([POSIX, S3], "mon.1") == [
        {"number": 1, "type": "posix", "place": "mon.1:/srv/pgbackrest"},
        {"number": 2, "type": "s3", "place": "s3://b/pgbackrest"},
    ]


NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)


def listed(*stops: str | None) -> dict[str, Any]:
    backups = [{"stop": stop, "system_id": "70"} for stop in stops]
    repositories = [{"error": "", "system_id": "70", "backups": backups}]
    return {"rc": 0, "stdout": json.dumps({"repositories": repositories})}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (listed("2026-11-25T10:00:00Z", "2026-11-26T11:00:00Z"), ""),
        (listed("2026-11-25T09:00:00Z"), "the last backup of the database is 27 hours old, more than 26"),
        (listed(), "there is no backup of the database yet"),
        ({"rc": 1, "stderr": "<3>x\nrepository 1 cannot be read"}, "cannot be listed: repository 1 cannot be read"),
        ({"unreachable": True}, "the backup host does not answer"),
        ({"msg": "No such file"}, "the backups cannot be listed: No such file"),
    ],
)
def test_the_age_of_the_last_backup(said, expected):
    problem = backup.backup_age_problem(said, 26, NOW)
    assert (problem == "") if not expected else (expected in problem)
    assert "\n" not in problem


def test_a_first_backup_is_lacking_also_after_a_major_upgrade():
    assert backup.backup_lacking(listed()["stdout"])
    assert not backup.backup_lacking(listed("2026-11-25T10:00:00Z")["stdout"])
    upgraded = {"error": "", "system_id": "71", "backups": [{"system_id": "70"}]}
    assert backup.backup_lacking(json.dumps({"repositories": [upgraded]}))
    assert not backup.backup_lacking(json.dumps({"repositories": [upgraded | {"error": "no answer"}]}))


def guarded(system_id: str = "70", version: str = "15", systems: str = "") -> str:
    text = f'repository 1\ndb-system-id={system_id}\ndb-version="{version}"\n' if system_id else "repository 1\n"
    return text + (f'{{"systems": [{systems}]}}\n' if systems else "")


@pytest.mark.parametrize(
    ("text", "cluster", "adopt", "expected"),
    [
        (guarded(), CLUSTER, "", ""),
        (guarded(""), CLUSTER, "", ""),
        ("", CLUSTER, "", ""),
        ("repository 1\nERROR: [125]: unable to connect\n", CLUSTER, "", ""),
        (guarded("9"), CLUSTER, "", "repository 1 (mon1:/srv) belongs to another cluster (system id 9, PostgreSQL 15)"),
        (guarded("9"), CLUSTER, "9", ""),
        (guarded("9", systems='"9"'), CLUSTER, "", "belongs to another cluster"),
        (guarded("9", "13", '"9"'), CLUSTER, "", ""),
        (guarded("9", "13"), CLUSTER, "", "belongs to another cluster"),
        (guarded(), {"system_id": "", "version": ""}, "", "this site has no data yet: restore it"),
        ("repository 1\nERROR: [095]: unable to flush\n", CLUSTER, "", "does not open with this key"),
    ],
)
def test_whose_a_repository_is(text, cluster, adopt, expected):
    problem = backup.repository_problem(text, cluster, PLACES, adopt)
    assert (problem == "") if not expected else (expected in problem)
    assert "\n" not in problem


def test_the_system_id_of_the_site_is_that_of_any_host_with_data():
    answer = {"stdout": "15\nDatabase system identifier:           7711498804438122895\n"}
    assert backup.cluster_system_id([{"stdout": ""}, {"skipped": True}, answer]) == {
        "system_id": "7711498804438122895",
        "version": "15",
    }
    assert backup.cluster_system_id([{}]) == {"system_id": "", "version": ""}


def test_progress_in_words():
    state = {"repository": 1, "type": "full", "percent": 41.6, "since": "2026-11-26T11:00:00Z"}
    said = json.dumps({"running": True, "progress": state})
    assert backup.backup_progress(said) == "repository 1: full backup since 2026-11-26T11:00:00Z, 42 %"
    assert "waiting" in backup.backup_progress('{"running": true, "progress": {}}')
