"""Notes which files a run writes, and ends the report of a run that failed before it could end it itself."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

sys.path.append(str(Path(__file__).resolve().parents[1]))
from plugin_utils.report.errors import without_secrets  # noqa: E402
from plugin_utils.report.page import report_html  # noqa: E402
from plugin_utils.report.record import CHANGES, changed_files, plain, report_changes, report_end, report_with  # noqa: E402

DOCUMENTATION = """
name: run_report
type: aggregate
short_description: Files written, and the end of a report that nobody else could write
description:
  - Acts only in runs that keep a report, which is seen by the fact C(run_report).
  - Notes the files that C(managed_files) wrote, beside the report.
  - A failure ends a playbook at once, and with it every play that would have written the report. The report is then
    ended here, with the last failure as its message.
options: {}
"""


class CallbackModule(CallbackBase):
    """Watches results. It is no stdout callback and needs not be enabled: without a report it does nothing."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "run_report"
    CALLBACK_NEEDS_ENABLED = False

    def __init__(self) -> None:
        super().__init__()
        self.report: dict[str, Any] = {}
        self.failed: dict[str, str] = {}
        self.failed_task = ""

    @property
    def directory(self) -> Path | None:
        """Where the report of this run is; nothing when it keeps none, as in check mode."""
        name = self.report.get("directory")
        return Path(name) if name else None

    def v2_runner_on_ok(self, result: Any) -> None:
        """Learn of the report, and of files that were written."""
        found = result.result
        facts = found.get("ansible_facts")
        if isinstance(facts, dict) and isinstance(facts.get("run_report"), dict):
            self.report = plain(facts["run_report"])
        if self.directory and result.task.action == "managed_files" and (files := changed_files(found)):
            line = json.dumps({"host": result.host.get_name(), "files": files}, sort_keys=True)
            try:
                with (self.directory / CHANGES).open("a", encoding="utf-8") as handle:
                    handle.write(line + "\n")
            except OSError as error:
                self._display.warning(f"the files that were written are not noted: {error}")

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """Remember the last task that failed, on all of its hosts."""
        if not ignore_errors:
            self._remember(result, str(result.result.get("msg") or "failed"))

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """Remember a host that does not answer."""
        if not result.task.ignore_unreachable:
            self._remember(result, str(result.result.get("msg") or "no answer"))

    def _remember(self, result: Any, message: str) -> None:
        if self.failed_task != result.task_name:
            self.failed_task, self.failed = result.task_name, {}
        self.failed[result.host.get_name()] = message.strip()

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """End a report that was left open by a failure."""
        directory = self.directory
        if not directory or self.report.get("result") != "unfinished" or not (stats.failures or stats.dark):
            return
        hosts, first = ", ".join(self.failed), next(iter(self.failed.values()), "")
        message = without_secrets(f"{self.failed_task} on {hosts}: {first}" if hosts else "it failed")
        report = report_end(report_with(self.report, {"changes": report_changes(str(directory))}), "failed", message)
        try:
            # The page last: where it is, the report beside it is whole.
            (directory / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
            (directory / "report.html").write_text(report_html(report), encoding="utf-8")
        except OSError as error:
            self._display.warning(f"the report of this run was not ended: {error}")
            return
        self._display.display(f"Report: {directory}/report.html")
