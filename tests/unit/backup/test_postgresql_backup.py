"""The program for backups: what it reads of pgBackRest and Patroni, what it refuses, and which backup it chooses."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.app.paths import load_program

backup = load_program("roles/pgbackrest/files/postgresql_backup", "postgresql_backup")
common = sys.modules["postgresql_backup_repository"]
cluster = sys.modules["postgresql_backup_cluster"]
wal = sys.modules["postgresql_backup_wal"]
survey = sys.modules["postgresql_backup_survey"]
choice = sys.modules["postgresql_backup_choice"]

NOON = 1795694400
"""2026-11-26 12:00 UTC."""


@pytest.fixture
def config(tmp_path: Path) -> Any:
    return common.Config(
        {
            "stanza": "chat",
            "here": "mon1",
            "members": [{"name": "db1", "address": "192.0.2.1"}, {"name": "db2", "address": "192.0.2.2"}],
            "patroni_port": 8008,
            "pki": "/nonexistent",
            "repositories": [{"number": 1, "type": "posix", "place": "mon1:/srv"}],
            "data_directory": "/var/lib/postgresql/{version}/main",
            "version": 15,
            "from_standby": True,
            "annotations": {"release": "12.0", "deployment": ""},
            "state_directory": str(tmp_path / "state"),
            "textfile_directory": str(tmp_path / "textfile"),
            "lock": str(tmp_path / "lock"),
        }
    )


def stored(label: str, stop: int, wal: str, number: int = 1, database: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "label": label,
        "type": {"F": "full", "D": "diff", "I": "incr"}[label[-1]],
        "timestamp": {"start": stop - 60, "stop": stop},
        "info": {"size": 1000, "repository": {"delta": 100}},
        "archive": {"start": wal, "stop": wal},
        "database": {"id": database, "repo-key": number},
        "reference": None,
        "error": False,
    } | more


def said(*backups: dict[str, Any], newest: str = "000000010000000000000009", code: int = 0, words: str = "ok") -> str:
    stanza = {
        "name": "chat",
        "repo": [{"key": 1, "status": {"code": code, "message": words}}],
        "db": [{"id": 1, "repo-key": 1, "system-id": 70, "version": "15"}],
        "archive": [{"database": {"id": 1, "repo-key": 1}, "id": "15-1", "max": newest, "min": newest}],
        "backup": list(backups),
    }
    return json.dumps([stanza])


# ---- Patroni


def answer(role: str, state: str = "running") -> dict[str, Any]:
    return {"role": role, "state": state, "server_version": 150018, "database_system_identifier": "70"}


def test_the_leader_and_who_streams():
    members = {"members": [{"name": "db1", "role": "leader"}, {"name": "db2", "lag": 0}]}
    for leader in ("master", "primary"):
        live = cluster.judge({"db1": answer(leader), "db2": answer("replica", "streaming")}, members)
        assert live == cluster.Live("db1", ("db2",), "70", 15)


@pytest.mark.parametrize("lag", [1 << 40, "unknown", None])
def test_a_replica_that_lags_is_not_taken(lag):
    members = {"members": [{"name": "db2", "lag": lag}]}
    assert cluster.judge({"db1": answer("primary"), "db2": answer("replica")}, members).replicas == ()


def test_one_that_starts_or_does_not_answer_is_nobody():
    live = cluster.judge({"db1": None, "db2": answer("primary", "starting")}, {})
    assert live.leader == ""


def test_another_major_version_moves_the_path_of_the_data(config):
    assert cluster.database_options(config, cluster.Live("db1", (), "70", 15)) == []
    assert cluster.database_options(config, cluster.Live("db1", (), "71", 17)) == [
        "--pg1-path=/var/lib/postgresql/17/main",
        "--pg2-path=/var/lib/postgresql/17/main",
    ]


# ---- the stanza


LIVE = cluster.Live("db1", (), "70", 15)


@pytest.mark.parametrize(
    ("owners", "known", "step"),
    [
        ({1: cluster.Owner("70", 15)}, [], ""),
        ({1: None}, [], "stanza-create"),
        ({1: cluster.Owner("70", 15), 2: None}, [], "stanza-create"),
        ({1: cluster.Owner("69", 13)}, ["69"], "stanza-upgrade"),
        ({1: cluster.Owner("71", 17)}, ["70", "71"], "stanza-upgrade"),
    ],
)
def test_what_a_repository_needs(owners, known, step):
    assert cluster.stanza_step(owners, LIVE, known, str) == step


@pytest.mark.parametrize(
    ("found", "known"), [(cluster.Owner("9", 15), []), (cluster.Owner("9", 13), []), (cluster.Owner("9", 15), ["9"])]
)
def test_another_clusters_repository_is_refused_in_one_line(found, known):
    with pytest.raises(common.BackupError, match="belongs to another cluster: it has system id 9") as refusal:
        cluster.stanza_step({1: found}, LIVE, known, lambda number: "mon1:/srv")
    assert "\n" not in str(refusal.value)


def test_the_stanza_is_remembered_and_a_dead_repository_keeps_a_known_site_from_nothing(config, monkeypatch):
    calls: list[str] = []
    monkeypatch.setattr(cluster, "backrest", lambda config, *words, **options: calls.append(words[0]) or b"")
    monkeypatch.setattr(cluster, "owner", lambda config, number: None)
    assert cluster.ready(config, LIVE) == "stanza-create"
    assert calls == ["stanza-create"]
    assert cluster.remembered(config) == ["70"]

    def dead(config: Any, number: int) -> None:
        raise common.BackupError("repository 1 cannot be read: no answer")

    monkeypatch.setattr(cluster, "owner", dead)
    assert cluster.ready(config, LIVE) == ""
    (config.state / "systems.json").unlink()
    with pytest.raises(common.BackupError, match="no answer"):
        cluster.ready(config, LIVE)


def test_an_operator_may_take_over_a_repository(config, monkeypatch):
    monkeypatch.setattr(cluster, "backrest", lambda config, *words, **options: b"")
    monkeypatch.setattr(cluster, "owner", lambda config, number: cluster.Owner("9", 15))
    with pytest.raises(common.BackupError, match="another cluster"):
        cluster.ready(config, LIVE)
    assert cluster.ready(config, LIVE, "9") == "stanza-upgrade"


def test_the_owner_in_an_archive_info():
    text = '[cipher]\ncipher-pass="x"\n[db]\ndb-id=2\ndb-system-id=70\ndb-version="17"\n[db:history]\n1={"db-id":60}\n'
    assert cluster.parse_owner(text) == cluster.Owner("70", 17)
    assert cluster.parse_owner("\ufffd\ufffd") is None


# ---- what there is


def test_a_listing(config):
    first, second = stored("20261126-000000F", NOON - 7200, "A"), stored("20261126-000000F_20261126-110000I", NOON, "B")
    (repository,) = survey.parse_info(said(first, second), config, NOON + 60)
    assert (repository["system_id"], repository["version"], repository["archive"]) == ("70", 15, "15-1")
    assert [entry["age_seconds"] for entry in repository["backups"]] == [7260, 60]
    assert repository["backups"][1]["stop"] == "2026-11-26T12:00:00Z"
    lines = survey.table([repository | {"earliest": "e", "reaches": "r"}])
    assert lines[1] == "  from e to r"
    assert "20261126-000000F_20261126-110000I" in lines[-1]


def test_a_repository_that_does_not_open_is_told_as_that(config):
    text = said(code=99, words="[FormatError] key/value found outside of section at line 1: \u0001\ufffd")
    (repository,) = survey.parse_info(text, config, NOON)
    assert repository["error"] == (
        "repository 1 (mon1:/srv) does not open with this key (vault_pgbackrest_cipher_pass)"
    )
    assert survey.table([repository])[1].strip() == repository["error"]


def test_what_a_wrong_key_leaves_may_break_the_answer(config):
    text = '[{"name": "x", "repo": [{"key": 1, "status": {"code": 99, "message": "FormatError: got \'"o]\'"}}]}]'
    with pytest.raises(ValueError, match="delimiter"):
        json.loads(text)
    (repository,) = survey.parse_info(text, config, NOON)
    assert "does not open with this key" in repository["error"]
    assert repository["backups"] == []


def test_one_that_breaks_the_answer_does_not_hide_the_others(config, monkeypatch):
    config.repositories.append({"number": 2, "type": "s3", "place": "s3:bucket"})
    broken = '[{"name": "x", "repo": [{"key": 2, "status": {"code": 99, "message": "FormatError: got \'"o]\'"}}]}]'

    def backrest(config, *words, **options):
        return (said(stored("20261126-000000F", NOON, "A")) if "--repo=1" in words else broken).encode()

    monkeypatch.setattr(survey, "backrest", backrest)
    first, second = survey.info(config)
    assert (first["error"], len(first["backups"])) == ("", 1)
    assert "repository 2 (s3:bucket) does not open with this key" in second["error"]


def test_no_stanza_yet_is_a_repository_without_backups(config):
    for text in ("", "[]", '[{"name": "other"}]'):
        (repository,) = survey.parse_info(text, config, NOON)
        assert (repository["backups"], repository["newest_wal"], repository["error"]) == ([], None, "")


def test_the_last_commit_of_a_segment():
    lines = [
        "rmgr: Transaction len: 34, tx: 7, lsn: 0/A, prev 0/9, desc: COMMIT 2026-11-26 11:59:58.500000 UTC",
        "rmgr: Transaction len: 34, tx: 8, lsn: 0/B, prev 0/A, desc: ABORT 2026-11-26 13:00:00.000000 UTC",
        "rmgr: Transaction len: 34, tx: 9, lsn: 0/C, prev 0/B, desc: COMMIT 2026-11-26 12:00:00.000000 UTC; inval msgs",
    ]
    assert wal.last_commit(lines) == NOON
    assert wal.last_commit([]) is None


def test_a_segment_is_read_with_the_program_of_its_compression():
    with pytest.raises(common.BackupError, match=r"compressed as \.xz"):
        wal.decompressed(b"", "xz")
    assert wal.decompressed(b"wal", "") == b"wal"


# ---- the way of a recovery


def segment(name: str, time: float = 0.0) -> Any:
    return wal.Segment(name, f"archive/{name}", time)


def named(timeline: int, *places: int) -> list[Any]:
    return [segment(f"{timeline:08X}{place // 256:08X}{place % 256:08X}", float(place)) for place in places]


def places(way: Any) -> list[tuple[int, int]]:
    return [(int(found.name[:8], 16), wal.segment_number(found.name)) for found in way.segments]


def test_a_way_without_gaps_over_the_end_of_a_log_file():
    way = wal.walk(named(1, *range(254, 259)), {}, "0000000100000000000000FE", None)
    assert places(way) == [(1, place) for place in range(254, 259)]
    assert way.missing == []


def test_a_gap_is_found_and_named():
    way = wal.walk(named(1, 5, 6, 8, 9), {}, "000000010000000000000005", None)
    assert way.missing == ["000000010000000000000007"]
    assert places(way) == [(1, 5), (1, 6)]


def test_a_gap_behind_the_target_is_none():
    assert wal.walk(named(1, 5, 6, 8), {}, "000000010000000000000005", 6.0).missing == []
    assert wal.walk(named(1, 5, 6, 8), {}, "000000010000000000000005", 6.5).missing != []


def test_the_first_segment_may_not_be_missing_whatever_the_target():
    assert wal.walk(named(1, 6, 7), {}, "000000010000000000000005", 1.0).missing == ["000000010000000000000005"]


HISTORY = "1\t0/7000000\tno recovery target specified\n"


def test_the_way_follows_a_failover():
    histories = {2: wal.parse_history(HISTORY)}
    way = wal.walk(named(1, 5, 6, 7, 8) + named(2, 7, 8, 9), histories, "000000010000000000000005", None)
    assert places(way) == [(1, 5), (1, 6), (2, 7), (2, 8), (2, 9)]
    assert way.missing == []


def test_what_an_old_leader_wrote_behind_the_end_of_its_timeline_is_not_taken():
    histories = {2: wal.parse_history(HISTORY)}
    way = wal.walk(named(1, 5, 6, 7, 8, 9) + named(2, 7), histories, "000000010000000000000005", None)
    assert places(way) == [(1, 5), (1, 6), (2, 7)]
    assert way.missing == []


def test_a_timeline_of_which_nothing_is_archived_yet_leaves_the_one_before_up_to_its_end():
    histories = {2: wal.parse_history(HISTORY)}
    way = wal.walk(named(1, 5, 6, 7, 8), histories, "000000010000000000000005", None)
    assert places(way) == [(1, 5), (1, 6), (1, 7)]


def test_what_a_lost_leader_did_not_archive_is_missing():
    histories = {2: wal.parse_history(HISTORY)}
    way = wal.walk(named(1, 5) + named(2, 7, 8), histories, "000000010000000000000005", None)
    assert way.missing == ["000000010000000000000006"]


def test_a_backup_of_a_timeline_that_leads_nowhere_is_refused():
    histories = {2: [(1, 7)], 3: [(1, 9)]}
    with pytest.raises(common.BackupError, match="timeline 3 of the archive does not come from timeline 2"):
        wal.path_of_timelines(histories, 2)


# ---- choosing


@pytest.mark.parametrize(
    ("text", "kind", "time"),
    [
        ("latest", "latest", None),
        ("name:before-upgrade", "name", None),
        ("2026-11-26T12:00:00Z", "time", NOON),
        ("2026-11-26 13:00:00+01:00", "time", NOON),
    ],
)
def test_targets(text, kind, time):
    target = choice.parse_target(text)
    assert (target.kind, target.time) == (kind, time)


@pytest.mark.parametrize("text", ["yesterday", "name:", "", "2026-13-01"])
def test_what_is_no_target_is_refused(text):
    with pytest.raises(common.BackupError):
        choice.parse_target(text)


def test_the_time_in_the_name_of_a_restore_point():
    assert choice.name_time("20261126T120000Z-upgrade") == NOON
    assert choice.name_time("upgrade-2026-11-26_12-00-00") == NOON
    assert choice.name_time("before-the-move") is None
    assert choice.name_time("20261399T990000Z") is None


OPTIONS = {"to": "latest", "repo": None, "set": "", "system_id": "", "version": None}
MANIFEST = b'[backup]\nx=1\n\n[target:file]\npg_data/PG_VERSION={"bni":1,"size":3}\npg_data/base/1/2={"size":9}\n'
FULL, INCR = "20261126-080000F", "20261126-080000F_20261126-100000I"


class Repository:
    """A repository in memory, in the place of pgBackRest."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, config: Any) -> None:
        self.config = config
        self.places = list(range(4, 10))
        self.files = {FULL: ["backup.manifest", "bundle/1", "pg_data/base/1/2.zst"], INCR: ["backup.manifest"]}
        self.manifests = {
            FULL: MANIFEST,
            INCR: b'[target:file]\npg_data/PG_VERSION={"bni":1,"reference":"' + FULL.encode() + b'","size":3}\n',
        }
        self.backups = [
            stored(FULL, NOON - 4 * 3600, "000000010000000000000004"),
            stored(INCR, NOON - 2 * 3600, "000000010000000000000006", reference=[FULL]),
        ]
        self.status = {"code": 0, "words": "ok"}
        self.commits = float(NOON)
        self.points: dict[str, int] = {}
        monkeypatch.setattr(
            survey, "info", lambda config: survey.parse_info(said(*self.backups, **self.status), config, NOON)
        )
        monkeypatch.setattr(
            survey, "reach", lambda config, repository: {"newest_wal_at": NOON, "reaches": self.commits}
        )
        monkeypatch.setattr(choice, "listing", self.listing)
        monkeypatch.setattr(
            choice, "repository_file", lambda config, number, path: self.manifests.get(path.split("/")[2])
        )
        monkeypatch.setattr(choice, "archive", self.archive)
        monkeypatch.setattr(backup, "archive", self.archive)
        monkeypatch.setattr(choice, "waldump", self.waldump)

    def listing(self, config: Any, number: int, path: str, recurse: bool = False) -> dict[str, Any]:
        return {name: {"type": "file"} for name in self.files[path.split("/")[2]]}

    def archive(self, config: Any, repository: Any, since: str, archive_id: str = "") -> Any:
        assert (archive_id or repository["archive"]) == "15-1"
        # One segment an hour, the last one at noon.
        return [segment(f"{1:08X}{0:08X}{place:08X}", NOON - (9 - place) * 3600.0) for place in self.places], {}

    def waldump(self, config: Any, number: int, found: Any, version: int, manager: str) -> list[str]:
        names = [name for name, place in self.points.items() if place == wal.segment_number(found.name)]
        return [f"rmgr: XLOG len: 1, desc: RESTORE_POINT {name}" for name in names]

    def choose(self, **options: Any) -> dict[str, Any]:
        chosen: dict[str, Any] = choice.choose(self.config, argparse.Namespace(**OPTIONS | options))
        return chosen


@pytest.fixture
def repository(monkeypatch: pytest.MonkeyPatch, config: Any) -> Repository:
    return Repository(monkeypatch, config)


def test_the_newest_backup_gets_to_the_latest_moment(repository):
    chosen = repository.choose()
    assert (chosen["repo"], chosen["set"], chosen["version"], chosen["system_id"]) == (1, INCR, 15, "70")
    assert (chosen["earliest"], chosen["reaches"]) == ("2026-11-26T08:00:00Z", "2026-11-26T12:00:00Z")
    assert chosen["database_bytes"] == 1000
    assert chosen["newest_wal"] == "000000010000000000000009"


def test_a_time_takes_the_last_backup_from_before_it(repository):
    assert repository.choose(to="2026-11-26T09:00:00Z")["set"] == FULL
    assert repository.choose(to="2026-11-26T11:00:00Z")["set"] == INCR


def test_a_named_point_takes_the_last_backup_from_before_it(repository):
    repository.points = {"20261126T093000Z-upgrade": 6, "later": 8}
    assert repository.choose(to="name:20261126T093000Z-upgrade")["set"] == FULL
    assert repository.choose(to="name:later")["set"] == INCR


def test_a_set_may_be_asked_for(repository):
    assert repository.choose(set=FULL)["set"] == FULL


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"to": "2026-11-26T07:00:00Z"}, "is before the end of the first backup, 2026-11-26T08:00:00Z"),
        ({"to": "2026-11-26T12:00:30Z"}, "is after the last change that was archived, 2026-11-26T12:00:00Z"),
        ({"to": "name:unheard"}, "no restore point unheard"),
        ({"system_id": "9"}, "belongs to another cluster: system id 70, not 9"),
        ({"version": 17}, "holds PostgreSQL 15, not 17"),
        ({"set": "20250101-000000F"}, "has no good backup 20250101-000000F"),
        ({"repo": 3}, "there is no repository 3; those are 1"),
    ],
)
def test_refusals_in_one_line(repository, options, says):
    with pytest.raises(common.BackupError) as refusal:
        repository.choose(**options)
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_missing_segment_is_refused_only_where_it_is_needed(repository):
    repository.places.remove(8)
    with pytest.raises(common.BackupError, match="WAL segment 000000010000000000000008 is missing between"):
        repository.choose()
    assert repository.choose(to="2026-11-26T09:00:00Z")["set"] == FULL


def test_an_archive_that_ends_before_the_backup_does_is_refused(repository):
    repository.places = [4, 5]
    with pytest.raises(common.BackupError, match="is missing"):
        repository.choose()


def test_a_missing_manifest_is_refused(repository):
    del repository.manifests[INCR]
    with pytest.raises(common.BackupError, match=f"backup {INCR} of repository 1 has no manifest"):
        repository.choose()


def test_a_missing_file_of_a_backup_that_it_builds_on_is_refused(repository):
    repository.files[FULL].remove("bundle/1")
    with pytest.raises(common.BackupError, match=f"lacks {FULL}/bundle/1"):
        repository.choose()


def test_a_missing_file_is_refused(repository):
    repository.files[FULL].remove("pg_data/base/1/2.zst")
    with pytest.raises(common.BackupError, match=f"lacks {FULL}/pg_data/base/1/2"):
        repository.choose(set=FULL)


def test_a_broken_manifest_and_an_empty_backup_are_refused(repository):
    repository.manifests[INCR] = b"nothing of use"
    with pytest.raises(common.BackupError, match="broken or empty"):
        repository.choose()
    repository.backups[1]["info"]["size"] = 0
    with pytest.raises(common.BackupError, match="is empty"):
        repository.choose()


def test_an_empty_repository_and_one_with_another_key_are_refused(repository):
    repository.backups.clear()
    with pytest.raises(common.BackupError, match="has no backup"):
        repository.choose()
    repository.status = {"code": 99, "words": "FormatError: key/value found outside of section"}
    with pytest.raises(common.BackupError, match="does not open with this key"):
        repository.choose()


def test_a_backup_with_broken_pages_is_not_chosen(repository):
    repository.backups[1]["error"] = True
    assert repository.choose()["set"] == FULL


# ---- a run


class Runs:
    """Backups that are only noted; those of a replica may fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, replica_fails: bool = False, all_fail: bool = False) -> None:
        self.words: list[list[str]] = []
        self.replica_fails, self.all_fail = replica_fails, all_fail
        monkeypatch.setattr(backup, "back_up", self.back_up)
        monkeypatch.setattr(backup, "look", lambda config: cluster.Live("db1", ("db2",), "70", 15))
        monkeypatch.setattr(backup, "ready", lambda config, live: "")
        monkeypatch.setattr(backup, "metrics", lambda config: {})

    def back_up(self, config: Any, words: list[str], progress: Any) -> None:
        self.words.append(words)
        if self.all_fail or (self.replica_fails and "--backup-standby" in words):
            raise common.BackupError("[056]: unable to find standby cluster")


def runs(config: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((config.state / "runs.json").read_text())["runs"]
    return found


def test_a_backup_is_of_a_replica_and_carries_notes(monkeypatch, config):
    noted = Runs(monkeypatch)
    backup.run(config, "full", None)
    (words,) = noted.words
    assert words[0] == "backup"
    assert {"--repo=1", "--type=full", "--backup-standby", "--annotation=release=12.0"} <= set(words)
    assert "--annotation=source=replica" in words
    assert not [word for word in words if word.startswith("--annotation=deployment")]
    (entry,) = runs(config)
    assert entry["ok"]
    assert entry["last_good"]


def test_where_the_replica_fails_the_leader_is_taken(monkeypatch, config):
    noted = Runs(monkeypatch, replica_fails=True)
    backup.run(config, "incr", 1)
    assert ["--backup-standby" in words for words in noted.words] == [True, False]
    assert runs(config)[0]["ok"]


def test_a_failure_is_told_and_kept_and_the_last_good_one_is_remembered(monkeypatch, config):
    Runs(monkeypatch)
    backup.run(config, "full", None)
    good = runs(config)[0]["last_good"]
    Runs(monkeypatch, all_fail=True)
    with pytest.raises(common.BackupError, match="repository 1: .*unable to find"):
        backup.run(config, "full", None)
    (entry,) = runs(config)
    assert (entry["ok"], entry["last_good"]) == (False, good)


def test_one_repository_that_fails_does_not_keep_the_other_from_its_backup(monkeypatch, config):
    config.repositories.append({"number": 2, "type": "s3", "place": "s3://b"})
    noted = Runs(monkeypatch, all_fail=True)
    config.from_standby = False
    with pytest.raises(common.BackupError, match="repository 1: .*; repository 2: "):
        backup.run(config, "full", None)
    assert [words[1] for words in noted.words] == ["--repo=1", "--repo=2"]


def test_a_cluster_without_a_leader_is_noted_as_a_failure(monkeypatch, config):
    def nobody(config: Any) -> None:
        raise common.BackupError("nobody leads the database cluster")

    monkeypatch.setattr(backup, "look", nobody)
    with pytest.raises(common.BackupError, match="nobody leads"):
        backup.run(config, "full", None)
    assert not runs(config)[0]["ok"]


def test_two_backups_do_not_run_together(config):
    with backup.turn(config, 0):
        with pytest.raises(common.BackupError, match="still runs"), backup.turn(config, 0):
            pass
        assert backup.progress(config, 0)["running"]
    assert not backup.progress(config, 0)["running"]


def test_progress_of_pgbackrests_log(config, capsys):
    progress = backup.Progress(config.state / "progress.json", "full", 1)
    progress.line(
        "P01 DETAIL: backup file db1:/var/lib/postgresql/15/main/base/1/2 (bundle 1/9, 8KB, 41.50%) checksum a"
    )
    assert progress.percent == 41.5
    assert "repository 1: full, 42 %" in capsys.readouterr().err
    assert json.loads((config.state / "progress.json").read_text())["percent"] == 41.5


# ---- monitoring, and how it is called


def test_figures(monkeypatch, config, tmp_path):
    Repository(monkeypatch, config)
    (tmp_path / "textfile").mkdir()
    state = backup.metrics(config)
    assert state["repositories"][0]["missing"] == []
    text = (tmp_path / "textfile/zulip_ha_postgresql_backup.prom").read_text()
    assert f'zulip_ha_postgresql_archive_reaches_timestamp_seconds{{repository="1"}} {NOON}' in text
    assert 'zulip_ha_postgresql_backup_last_timestamp_seconds{repository="1",type="full"}' in text
    assert all(line.rsplit(" ", 1)[1].replace(".", "").isdigit() for line in text.splitlines())
    written = json.loads((config.state / "postgresql.json").read_text())
    assert [entry["label"] for entry in written["repositories"][0]["backups"]] == [FULL, INCR]


def test_missing_wal_is_an_alarm(monkeypatch, config, capsys):
    repository = Repository(monkeypatch, config)
    repository.places.remove(8)
    state = backup.metrics(config)
    assert state["repositories"][0]["missing"] == ["000000010000000000000008"]
    assert "WAL is missing since the last backup" in capsys.readouterr().err


def test_what_pgbackrest_says_becomes_one_printable_line():
    text = "WARN: x\nERROR: [095]: unable to flush\x01\ufffd\n       HINT: y\n"
    assert common.one_line(text) == "[095]: unable to flush"
    assert common.one_line("") == "it said nothing"


def test_bad_input_is_told_in_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    monkeypatch.setattr("sys.argv", ["postgresql_backup", "--config", str(tmp_path / "none.json"), "list"])
    assert backup.main() == 1
    said_there = capsys.readouterr().err
    assert said_there.count("\n") == 1
    assert "none.json: FileNotFoundError" in said_there
