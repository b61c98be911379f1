"""The steps of a drill, from the choice of a backup to the removal of what was restored, and how each of them went."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from restore_drill_backups import Files, Programs
from restore_drill_command import parsed
from restore_drill_database import Live, Scratch, identifier, literal, live_query, restored_query, tables_query
from restore_drill_judgement import end_problem, file_digest, judge_counts, judge_hashes, object_keys
from restore_drill_peers import ASKED_NAMES, Peers
from restore_drill_words import ERROR, INFO, DrillError, duration, one_line, say, shown, size, timestamp

FEW = 5
"""So many files may all have been removed since the snapshot."""
GIGABYTE = 1_000_000_000
SPACE_FACTOR = 1.1
"""Room for the files of the database, and what replay adds to them."""
RESTORE_STEPS = ("choose", "space", "fetch", "recover")
CHECK_STEPS = ("end", "canary", "amcheck", "counts", "message", "uploads")
STEPS = (*RESTORE_STEPS, *CHECK_STEPS, "remove")


class Step:
    """One step of a drill and how it went."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ok, self.skipped, self.detail = False, True, "not reached"
        self.seconds, self.bytes = 0.0, 0


class Said(NamedTuple):
    """What a step that went well has to say."""

    detail: str
    bytes: int = 0


class Drill:
    """One drill."""

    def __init__(self, config: Mapping[str, Any], keep: bool = False, now: Callable[[], float] = time.time) -> None:
        self.config, self.keep, self.now = config, keep, now
        self.programs = Programs(config)
        self.scratch = Scratch(config, self.programs.socket)
        self.live, self.peers, self.files = Live(config), Peers(config), Files(config)
        self.steps = {name: Step(name) for name in STEPS}
        self.chosen: dict[str, Any] = {}
        self.recovered: dict[str, Any] = {}
        self.newest_wal = ""
        self.live_before: dict[str, Any] = {}
        self.live_error = ""
        self.up = False

    # -- before

    def clean(self) -> None:
        """Take away what a drill before this one has left."""
        if self.programs.data.exists():
            with contextlib.suppress(DrillError):
                self.programs.stop()
        self.programs.remove()
        # What fetch had begun before it knew whether it could is not known to be its own.
        spool = self.programs.data.with_name("restore-spool")
        for path in (self.programs.data, self.programs.socket, spool, self.uploads_target):
            if path.is_symlink():
                raise DrillError(f"{path} is a link; remove it")
            shutil.rmtree(path, ignore_errors=True)

    @property
    def uploads_target(self) -> Path:
        """Where the sample of uploads goes."""
        return Path(self.config["directory"], "uploads")

    # -- the steps that restore

    def choose(self) -> Said:
        """Find the latest backup, and see that it is one of this site's and of the last hours."""
        try:
            query = "SELECT json_build_object('system_id', (SELECT system_identifier::text FROM pg_control_system()));"
            lines = self.live.sql(query + tables_query(self.config["schema"]))
            self.live_before = {
                **parsed(lines[0], "the live database"),
                "tables": parsed(lines[1], "the live database"),
            }
        except (DrillError, IndexError) as error:
            # The restore is worth a try without it; the step that counts will say it again.
            self.live_error = str(error)
        self.chosen = self.programs.choose(str(self.live_before.get("system_id") or ""))
        self.newest_wal = self.chosen["newest_wal"]
        age = self.now() - timestamp(self.chosen["stop"])
        limit = float(self.config["backup_max_age"]) * 3600
        if age > limit:
            raise DrillError(
                f"the latest backup, {self.chosen['set']}, is {duration(age)} old; {duration(limit)} are allowed"
            )
        return Said(
            f"{self.chosen['set']} of repository {self.chosen['repo']}, {duration(age)} old, "
            f"{size(self.chosen['database_bytes'])}",
            int(self.chosen.get("repo_bytes") or 0),
        )

    def space(self) -> Said:
        """See that it fits."""
        free = shutil.disk_usage(self.config["directory"]).free
        wanted = int(int(self.chosen["database_bytes"]) * SPACE_FACTOR) + int(self.config["reserve_mb"]) * 1_000_000
        if free < wanted:
            raise DrillError(f"{self.config['directory']} has {size(free)} free; the drill needs {size(wanted)}")
        return Said(f"{size(free)} free, {size(wanted)} needed")

    def fetch(self) -> Said:
        """Bring the files."""
        self.programs.fetch(self.chosen)
        return Said(size(self.chosen["database_bytes"]), int(self.chosen["database_bytes"]))

    def recover(self) -> Said:
        """Start the instance and replay."""
        self.recovered = self.programs.recover(self.chosen)
        if not self.recovered.get("target_reached"):
            raise DrillError(f"replay ended at {self.recovered.get('last_lsn')}, before the end")
        if not self.recovered.get("last_time"):
            # A backup of a moment ago: nobody has written since, and what is there is of when it ended.
            self.recovered = {**self.recovered, "last_time": self.chosen["stop"]}
        self.up = True
        return Said(
            f"timeline {self.recovered['timeline']}, {self.recovered['last_lsn']}, {self.recovered['last_time']}",
            int(self.recovered.get("bytes") or 0),
        )

    # -- the steps that look

    def end(self) -> Said:
        """See that replay came as far as the archive does, and that this is not long ago."""
        (setting,) = self.scratch.sql("postgres", "SELECT setting FROM pg_settings WHERE name = 'wal_segment_size';")
        last, timeline = self.recovered["last_lsn"], int(self.recovered["timeline"])
        # As it was when the drill began, and as it was when replay did.
        newest = [name for name in (self.newest_wal, self.recovered.get("newest_segment")) if name]
        if not newest:
            raise DrillError("nobody says which WAL segment is the newest that is archived")
        for name in newest:
            if problem := end_problem(last, timeline, name, int(setting)):
                raise DrillError(problem)
        age = self.now() - timestamp(self.recovered["last_time"])
        limit = float(self.config["max_age"])
        if age > limit:
            raise DrillError(
                f"what was restored ends at {self.recovered['last_time']}, {duration(age)} ago; "
                f"{duration(limit)} are allowed"
            )
        return Said(f"{newest[-1]}, {duration(max(age, 0))} ago")

    def canary(self) -> Said:
        """See that the canary's last row is close to the end."""
        lines = self.scratch.sql("postgres", "SELECT extract(epoch FROM max(at)) FROM zulip_ha.canary;")
        if not lines:
            raise DrillError("zulip_ha.canary has no row")
        age = timestamp(self.recovered["last_time"]) - float(lines[0])
        limit = float(self.config["canary_age"])
        if age > limit:
            raise DrillError(
                f"the canary's last row is {duration(age)} older than the end; {duration(limit)} are allowed"
            )
        return Said(f"{duration(max(age, 0))} before the end")

    def amcheck(self) -> Said:
        """Check tables and indexes."""
        self.scratch.amcheck()
        return Said("pg_amcheck found nothing")

    def counts(self) -> Said:
        """Compare rows with the live database."""
        if self.live_error:
            raise DrillError(self.live_error)
        schema, database = self.config["schema"], self.config["database"]
        tables: list[str] = parsed("".join(self.scratch.sql(database, tables_query(schema))), "psql")
        script = "\n".join(restored_query(schema, table) for table in tables)
        restored = {row[0]: (row[1], row[2]) for row in map(json.loads, self.scratch.sql(database, script))}
        there = set(json.loads(self.live.sql(tables_query(schema))[0]))
        rows = int(self.config["counts"]["rows"])
        script = "\n".join(
            live_query(schema, table, greatest, rows) for table, (greatest, _) in restored.items() if table in there
        )
        live = {row[0]: row[1] for row in map(json.loads, self.live.sql(script) if script else [])}
        missing = (there & set(self.live_before["tables"])) - set(restored)
        counts = judge_counts(restored, live, missing, self.config["counts"])
        if counts.problems:
            raise DrillError(shown(counts.problems))
        return Said(f"{counts.tables} tables, {counts.rows} rows")

    def sessions(self) -> int:
        """Return how many sessions the restored database has had."""
        name = literal(self.config["database"])
        (line,) = self.scratch.sql("postgres", f"SELECT sessions FROM pg_stat_database WHERE datname = {name};")
        return int(line)

    def message(self) -> Said:
        """Have the application read a message, and see that it was this instance's."""
        database, schema = self.config["database"], self.config["schema"]
        before = self.sessions()
        who, answer = self.peers.message()
        if not isinstance(answer, dict) or not isinstance(answer.get("messages"), int):
            raise DrillError(f"{who} did not say how many messages there are")
        # A session is counted a moment after it ended.
        for _ in range(20):
            if self.sessions() > before:
                break
            time.sleep(0.5)
        else:
            raise DrillError(f"the application on {who} did not read from the scratch instance")
        table = f"{identifier(schema)}.zerver_message"
        known = self.scratch.sql(database, f"SELECT to_regclass({literal(table)}) IS NOT NULL;") == ["t"]
        if not known:
            return Said(f"{who} counted {answer['messages']} messages")
        rows = int(self.scratch.sql(database, f"SELECT count(*) FROM {table};")[0])
        if not answer["messages"]:
            if rows:
                raise DrillError(f"{who} read no message; {rows} were restored")
            return Said(f"{who} found no message, as there is none yet")
        digest = self.scratch.sql(
            database,
            f"SELECT encode(sha256(convert_to(content, 'UTF8')), 'hex') FROM {table} WHERE id = {int(answer['id'])};",
        )
        if digest != [answer["sha256"]]:
            raise DrillError(f"{who} read another content of message {int(answer['id'])} than was restored")
        return Said(f"{who} read message {int(answer['id'])} of {answer['messages']}")

    # -- uploads

    def attachments(self, before: float) -> list[str]:
        """Return the uploads that the restored database knows of from before a time, as paths below the uploads."""
        if not self.up:
            return []
        table = f"{identifier(self.config['schema'])}.zerver_attachment"
        database = self.config["database"]
        if self.scratch.sql(database, f"SELECT to_regclass({literal(table)}) IS NOT NULL;") != ["t"]:
            return []
        query = (
            f"SELECT json_build_array(path_id) FROM {table} "
            f"WHERE create_time < to_timestamp({float(before)}) ORDER BY path_id;"
        )
        return [json.loads(line)[0] for line in self.scratch.sql(database, query)]

    def newest_snapshot(self) -> dict[str, Any]:
        """Return the newest snapshot of uploads."""
        snapshots = self.files.snapshots()
        if not snapshots:
            raise DrillError("there is no snapshot of uploads")
        newest = snapshots[-1]
        age = self.now() - timestamp(newest["time"])
        limit = float(self.config["uploads"]["max_age"]) * 3600
        if age > limit:
            raise DrillError(f"the newest snapshot of uploads is {duration(age)} old; {duration(limit)} are allowed")
        return newest

    def uploads(self) -> Said:
        """Restore some files and compare them; see that all that the database knows of are there."""
        newest = self.newest_snapshot()
        taken, label = timestamp(newest["time"]), str(newest["id"])[:8]
        files = self.files.names(newest["id"])
        if self.config["uploads"]["backend"] == "s3":
            return self.inventory(newest["id"], taken, sorted(files))
        known = [f"files/{path}" for path in self.attachments(taken)]
        self.absent([name for name in known if name not in files])
        if not files:
            return Said(f"snapshot {label}: no file yet")
        names = random.SystemRandom().sample(sorted(files), min(int(self.config["uploads"]["sample"]), len(files)))
        with self.brought(newest["id"], names) as folder:
            restored = {name: file_digest(self.plain(folder, name)) for name in names}
        who, live = self.peers.hashes(names)
        wrong, alike, since = judge_hashes(restored, live, taken)
        if wrong:
            raise DrillError(f"restored uploads differ from those of {who}: {shown(wrong)}")
        if not alike and len(names) >= FEW:
            raise DrillError(f"none of {len(names)} restored uploads is on {who}")
        rest = f", {since} changed since" if since else ""
        rest += f"; {len(known)} attachments are in it" if self.up else ""
        return Said(
            f"snapshot {label}: {alike} of {len(files)} are as on {who}{rest}",
            sum(files[name] for name in names),
        )

    @contextlib.contextmanager
    def brought(self, snapshot: str, names: Sequence[str]) -> Iterator[Path]:
        """Give a folder with some files of a snapshot."""
        target = self.uploads_target
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(mode=0o700)
        try:
            self.files.restore(snapshot, names, target)
            yield target
        finally:
            shutil.rmtree(target, ignore_errors=True)

    def plain(self, folder: Path, name: str) -> Path:
        """Return the path of a file that was restored."""
        path = folder / name
        if path.is_symlink() or not path.is_file():
            raise DrillError(f"{name} was not restored")
        return path

    def absent(self, names: list[str]) -> None:
        """Fail for files that the snapshot lacks and an app host has."""
        if not names:
            return
        who, live = self.peers.hashes(names[:ASKED_NAMES])
        lost = [name for name in names[:ASKED_NAMES] if live.get(name)]
        if lost or len(names) > ASKED_NAMES:
            raise DrillError(f"{len(names)} attachments are not in the snapshot and {who} has {shown(lost)}")
        # Removed by hand, or lost long ago: no backup can have them.
        say(f"the database knows of {len(names)} attachments that are nowhere: {shown(names)}")

    def inventory(self, snapshot: str, taken: float, names: Sequence[str]) -> Said:
        """With uploads in S3 the backup has the lists of objects: see that they hold what the database knows of."""
        if not names:
            raise DrillError(f"snapshot {snapshot[:8]} has no list of objects")
        keys: set[str] = set()
        with self.brought(snapshot, names) as folder:
            for name in names:
                keys |= set(object_keys(parsed(self.plain(folder, name).read_text(encoding="utf-8"), name)))
        known = self.attachments(taken)
        lost = [path for path in known if path not in keys]
        if lost:
            raise DrillError(f"{len(lost)} attachments are not among {len(keys)} objects: {shown(lost)}")
        return Said(f"list of {len(keys)} objects, {len(known)} attachments are in it")

    # -- the end

    def remove(self) -> Said:
        """Take it away."""
        if self.keep:
            return Said(f"kept, as asked for: {self.programs.data}; the next drill takes it away")
        self.clean()
        return Said("")

    def step(self, name: str) -> bool:
        """Do one step and note how it went."""
        step, began = self.steps[name], time.monotonic()
        step.skipped, step.detail = False, "interrupted"
        try:
            said: Said = getattr(self, name)()
            step.ok, step.detail, step.bytes = True, said.detail, said.bytes
        except DrillError as error:
            step.detail = str(error)
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            step.detail = f"unexpected answer: {type(error).__name__}: {one_line(str(error))}"
        finally:
            step.seconds = round(time.monotonic() - began, 3)
        say(f"{name}: {step.detail or 'done'} ({duration(step.seconds)})", INFO if step.ok else ERROR)
        return step.ok

    def run(self) -> None:
        """Do all of them. What cannot be looked at because nothing was restored is not looked at."""
        try:
            self.clean()
            Path(self.config["directory"]).mkdir(parents=True, exist_ok=True)
            restored = all(self.step(name) for name in RESTORE_STEPS)
            for name in CHECK_STEPS:
                # Uploads come from elsewhere.
                if restored or name == "uploads":
                    self.step(name)
        finally:
            self.step("remove")

    def report(self) -> dict[str, Any]:
        """Return what is remembered of it."""
        steps = list(self.steps.values())
        wrong = [step for step in steps if not step.ok and not step.skipped]
        rto = sum(self.steps[name].seconds for name in ("fetch", "recover"))
        whole = self.steps["fetch"].ok and self.steps["recover"].ok
        restored = int(self.chosen.get("database_bytes") or 0) if whole else 0
        return {
            "ok": all(step.ok for step in steps),
            "error": "; ".join(f"{step.name}: {step.detail}" for step in wrong),
            "backup": {key: self.chosen.get(key) for key in ("repo", "set", "reaches")} if self.chosen else {},
            "bytes": restored,
            "restore_seconds": round(rto, 3) if whole else None,
            "seconds_per_gigabyte": round(rto / (restored / GIGABYTE), 3) if restored else None,
            "steps": [vars(step) for step in steps],
        }
