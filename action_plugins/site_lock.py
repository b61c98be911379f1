"""Runs the module site_lock with the identity of this run, and looks for the process of the run that has the lock."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

sys.path.append(str(Path(__file__).resolve().parents[1]))
from plugin_utils.report.identity import is_dead, run_by, this_run  # noqa: E402

SAYS = {
    "followed": "The run before is dead, its lock is taken over",
    "forced": "The lock was taken from another run, as you asked",
    "again": "The lock of this run had run out, and nobody took it: give this phase more time (phase_minutes)",
}


class ActionModule(ActionBase):
    """One execution on the host; a second one only when the run that has the lock turns out to be dead."""

    _requires_connection = True
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Take, prolong or give back the lock."""
        super().run(tmp, task_vars)
        began = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        arguments = {**self._task.args, "run": {**this_run(), "by": run_by(), "began": began}}
        try:
            result = self._lock(arguments, task_vars)
            before = result.get("before") or {}
            if result.get("refused") and not result.get("lost") and is_dead(before):
                result = self._lock({**arguments, "dead": result["revision"]}, task_vars)
        finally:
            self._remove_tmp_path(self._connection._shell.tmpdir)
        said = SAYS.get(result.get("how", ""))
        if said:
            before = result.get("before") or {}
            whose = (
                f": {before.get('verb', '?')} by {before.get('by', '?')} since {before.get('began', '?')}"
                if before
                else ""
            )
            result["warnings"] = [*result.get("warnings", []), said + whose]
        return result

    def _lock(self, arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        answer: dict[str, Any] = self._execute_module(
            module_name="site_lock", module_args=arguments, task_vars=task_vars
        )
        return answer
