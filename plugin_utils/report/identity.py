"""Who runs the verb, and whether the process of an earlier run still lives on this controller."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pwd
from collections.abc import Mapping
from pathlib import Path
from typing import Any

UNKNOWN = -1
"""Start time of a process that is there and cannot be read."""


def run_by() -> str:
    """Return who sits at the controller; whom sudo knows before whom it became."""
    try:
        name = os.environ.get("SUDO_USER") or pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        name = str(os.geteuid())
    return f"{name}@{os.uname().nodename}"


def start_time(pid: int, proc: Path = Path("/proc")) -> int:
    """Return when a process began, in the kernel's ticks; 0 when there is none, UNKNOWN when it cannot be seen."""
    try:
        # The name in brackets may hold anything.
        fields = (proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return 0 if fields[0] in "ZX" else int(fields[19])
    except (OSError, IndexError, ValueError):
        pass
    # /proc may hide the processes of others; a signal cannot be deceived.
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return 0
    except OSError:
        pass
    return UNKNOWN


def controller() -> dict[str, str]:
    """Return what tells this controller from others: the machine, its boot, and the view of processes we have."""
    found = {"machine": "", "boot": "", "namespace": ""}
    for key, path in (("machine", "/etc/machine-id"), ("boot", "/proc/sys/kernel/random/boot_id")):
        try:
            found[key] = Path(path).read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            continue
    # Two containers on one machine may share all but this, and their processes have the same numbers.
    with contextlib.suppress(OSError):
        found["namespace"] = os.readlink("/proc/self/ns/pid")
    return found


def this_run() -> dict[str, Any]:
    """Return the identity of this run, which is its ansible-playbook process, asked from there or from a worker."""
    parent = multiprocessing.parent_process()
    pid = parent.pid if parent and parent.pid else os.getpid()
    return {**controller(), "pid": pid, "start": start_time(pid)}


def is_dead(record: Mapping[str, Any], here: Mapping[str, Any] | None = None, proc: Path = Path("/proc")) -> bool:
    """Tell whether the process of a record is known to be dead. Of another controller, or after a boot, nothing is."""
    here = controller() if here is None else here
    if not here["boot"] or not here["namespace"]:
        return False
    if any(record.get(key) != here[key] for key in ("machine", "boot", "namespace")):
        return False
    pid, start = record.get("pid"), record.get("start")
    if not isinstance(pid, int) or not isinstance(start, int) or start <= 0:
        return False
    return start_time(pid, proc) not in (start, UNKNOWN)
