"""What is remembered of drills: the state, in a file that is never half."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

KEPT_RUNS = 30


def replace_file(path: Path, text: str) -> None:
    """Replace a file as a whole; everybody may read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as stream:
        try:
            stream.write(text)
            os.fchmod(stream.fileno(), 0o644)
            stream.flush()
            os.fsync(stream.fileno())
        except BaseException:
            os.unlink(stream.name)
            raise
    os.replace(stream.name, path)


def read_state(path: Path) -> dict[str, Any]:
    """Return what is remembered; nothing where there is none, or where it cannot be read."""
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(state.get("runs"), list):
            return dict(state)
    except (OSError, ValueError, AttributeError):
        pass
    return {"version": 1, "runs": []}


def remember(state: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    """Return the state with a drill, in place of what it was remembered as while it ran."""
    runs = [one for one in state["runs"] if one.get("began") != entry["began"]]
    runs = [{**one, "ok": False, "ended": None, "error": "killed"} if one.get("ended") is None else one for one in runs]
    state = {**state, "version": 1, "runs": [*runs, entry][-KEPT_RUNS:]}
    if entry.get("ended") is not None:
        state["last_run"] = entry["ended"]
        if entry["ok"]:
            state["last_success"] = entry["ended"]
    return state
