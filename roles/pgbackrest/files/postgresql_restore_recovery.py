"""The step `recover`: what was fetched is recovered to its target, and judged by where it ended."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from postgresql_restore_host import StepError, as_postgres, locked, run
from postgresql_restore_marker import read_marker, write_marker
from postgresql_restore_repository import Repository, chosen_backup
from postgresql_restore_server import (
    control,
    directory_version,
    failure,
    log_file,
    parse_target,
    read_log,
    read_server_log,
    restore_command,
    running,
    server_settings,
    start_server,
    stop_server,
    wait_for_promotion,
    write_server_files,
)
from postgresql_restore_wal import SEGMENT, end_problem, lsn_number, lsn_of_segment, parents, segment_number, segment_of


def begin_recovery(directory: Path, options: argparse.Namespace, repository: Repository) -> dict[str, Any]:
    """Write down to where it has to come, and make the files that let PostgreSQL recover."""
    marker = read_marker(directory)
    if marker["state"] == "fetched":
        values = control(directory)
        backup = dict(marker["backup"])
        if marker["set"]:
            backup |= chosen_backup(repository.info(), marker["repo"], marker["set"])
        log_file(directory).unlink(missing_ok=True)
        begun = {
            "state": "recovering",
            "to": options.to,
            "timeline": options.timeline,
            "backup": backup,
            "segment_bytes": int(values["Bytes per WAL segment"]),
            "began": time.time(),
        }
        for name in ("recovery.signal", "standby.signal"):
            (directory / name).unlink(missing_ok=True)
        as_postgres(["touch", str(directory / "recovery.signal")])
        marker = write_marker(directory, begun)
    return marker


def recover(options: argparse.Namespace) -> dict[str, Any]:
    """Recover what was fetched, or go on with it; return where it came to."""
    directory: Path = options.directory
    parse_target(options.to)
    with locked(directory):
        marker = read_marker(directory)
        if marker.get("state") == "failed":
            raise StepError(f"{marker['why']}; fetch it again")
        if marker.get("state") not in ("fetched", "recovering", "recovered"):
            raise StepError(f"{directory} holds no backup that was fetched whole: run fetch first")
        if marker["state"] != "fetched" and marker["to"] != options.to:
            raise StepError(f"{directory} was recovered to {marker['to']}, not to {options.to}: fetch it again")
        repository = Repository(directory, options.stanza)
        if marker["state"] == "recovered":
            return serve(directory, options, repository, marker)
        state = wait_for_promotion(directory, options) if running(directory) else {}
        if not state:
            repository.prepare()
            marker = begin_recovery(directory, options, repository)
            state = attempt(directory, options, repository, marker)
        seen = read_log(read_server_log(directory))
        if not state:
            why = failure(seen, options.to, marker["backup"]["newest"], marker["segment_bytes"])
            if "before configured recovery target was reached" in seen["why"]:
                # What was replayed cannot be taken back.
                write_marker(directory, {"state": "failed", "why": why})
            raise StepError(why)
        answer = judged(directory, options, marker, state, seen)
        if not options.keep_running:
            stop_server(directory)
        run(["sync", "--file-system", str(directory)])
        write_marker(directory, {"state": "recovered", "answer": answer})
        return answer | {"running": options.keep_running}


def launch(directory: Path, options: argparse.Namespace, repository: Repository, marker: Mapping[str, Any]) -> None:
    """Start the server with the settings of this recovery."""
    write_server_files(options, repository.place)
    command = restore_command(
        repository.command(f"--repo={marker['repo']}", "--log-level-console=off", "--log-level-stderr=error")
    )
    settings = server_settings(options, repository.place, command)
    # PostgreSQL refuses less than two segments, whose size is the cluster's.
    smallest = max(80 << 20, 2 * int(marker["segment_bytes"]))
    start_server(directory, settings | {"min_wal_size": f"{smallest >> 20}MB"})


def attempt(
    directory: Path, options: argparse.Namespace, repository: Repository, marker: Mapping[str, Any]
) -> dict[str, Any]:
    """Start the server and wait. Processes of one that was killed may need a moment to notice that they are alone."""
    for _ in range(10):
        before = len(read_server_log(directory))
        launch(directory, options, repository, marker)
        state = wait_for_promotion(directory, options)
        if state or "pre-existing shared memory block" not in read_server_log(directory)[before:]:
            break
        time.sleep(2)
    return state


def serve(
    directory: Path, options: argparse.Namespace, repository: Repository, marker: Mapping[str, Any]
) -> dict[str, Any]:
    """Start what was recovered before, when it is to run."""
    if options.keep_running and not running(directory):
        repository.prepare()
        if not attempt(directory, options, repository, marker):
            seen = read_log(read_server_log(directory))
            raise StepError(f"PostgreSQL ended: {seen['why'] or 'its log says nothing'}")
    elif not options.keep_running:
        stop_server(directory)
    return dict(marker["answer"]) | {"running": options.keep_running}


def judged(
    directory: Path,
    options: argparse.Namespace,
    marker: Mapping[str, Any],
    state: Mapping[str, Any],
    seen: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what came of it. A recovery to the latest moment that ends before the archive does is none."""
    size, backup = int(marker["segment_bytes"]), marker["backup"]
    timeline = int(state["current"][:8], 16)
    lsn = state["lsn"] or lsn_of_segment(seen["segment"] or backup["start"] or state["current"], size)
    history = directory / "pg_wal" / f"{timeline:08X}.history"
    timelines = {timeline} | (parents(history.read_text(encoding="utf-8")) if history.exists() else set())
    if options.to == "latest" and options.timeline == "latest" and state["lsn"]:
        problem = end_problem(backup["newest"], lsn, size, timelines)
        if problem:
            stop_server(directory)
            write_marker(directory, {"state": "failed", "why": problem})
            raise StepError(problem)
    start = segment_number(backup["start"], size) * size if SEGMENT.match(backup["start"]) else lsn_number(lsn)
    values = control(directory)
    return {
        "timeline": timeline,
        "last_lsn": lsn,
        "last_segment": segment_of(timelines, lsn, size, backup["newest"], timeline),
        "last_time": state["time"] or seen["last_time"],
        "target_reached": options.to == "latest" or seen["stopped"],
        "newest_segment": backup["newest"],
        "system_id": values["Database system identifier"],
        "version": directory_version(directory),
        "seconds": round(time.time() - float(marker["began"]), 1),
        "bytes": max(lsn_number(lsn) - start, 0),
    }
