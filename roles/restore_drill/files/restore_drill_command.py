"""Programs that a drill runs, and the JSON that they print."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from restore_drill_words import DrillError, one_line


def run(command: Sequence[str], stdin: str = "", environment: Mapping[str, str] | None = None) -> str:
    """Run a program and return what it printed; its last words are the error."""
    try:
        done = subprocess.run(
            list(command),
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            env={**os.environ, **(environment or {})},
            check=False,
        )
    except OSError as error:
        raise DrillError(f"{command[0]}: {error.strerror or error}") from error
    if done.returncode:
        # pg_amcheck prints what it found.
        words = one_line(done.stderr) or " ".join(done.stdout.split())[:300]
        raise DrillError(words or f"{command[0]} ended with status {done.returncode}")
    return done.stdout


def parsed(text: str, who: str) -> Any:
    """Return the JSON that a program printed."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise DrillError(f"{who} printed no JSON: {one_line(text)!r}") from error
