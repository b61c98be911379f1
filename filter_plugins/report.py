"""Filters of the run's report, of the logs of errors, and of the room on disks."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))
from plugin_utils.report import errors, page, record, space  # noqa: E402


def answered_first(hosts: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return hosts, and those first that gave facts in this run: they are known to answer."""
    return sorted((str(host) for host in hosts), key=lambda host: not hostvars[host].get("ansible_facts"))


def file_bytes(path: str) -> int:
    """Return the size of a file on the controller; 0 when it is not there."""
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0


class FilterModule:
    """Filters of runs."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "answered_first": answered_first,
            "file_bytes": file_bytes,
            "report_begin": record.report_begin,
            "report_with": record.report_with,
            "report_phase": record.report_phase,
            "report_end": record.report_end,
            "report_line": record.report_line,
            "report_changes": record.report_changes,
            "report_html": page.report_html,
            "report_table": page.report_table,
            "without_secrets": errors.without_secrets,
            "log_arguments": errors.log_arguments,
            "errors_found": errors.errors_found,
            "disk_space": space.disk_space,
            "disk_problems": space.disk_problems,
        }
