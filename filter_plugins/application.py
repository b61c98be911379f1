"""Filters that shape an application's contract into commands, settings, units, shards and sizes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))
from plugin_utils.application import commands, files, nginx, plan, settings, sharding, units  # noqa: E402


class FilterModule:
    """Filters of the application's contract."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "python_literal": settings.python_literal,
            "python_assignments": settings.python_assignments,
            "python_imports": settings.python_imports,
            "ini_sections": settings.ini_sections,
            "contract_values": commands.contract_values,
            "contract_command": commands.contract_command,
            "systemd_exec": commands.systemd_exec,
            "by_memory": commands.by_memory,
            "application_files": files.application_files,
            "application_file_directories": files.application_file_directories,
            "event_probes": sharding.event_probes,
            "event_servers": sharding.event_servers,
            "tornado_queues": sharding.tornado_queues,
            "tornado_ports": sharding.tornado_ports,
            "tornado_sharding": sharding.tornado_sharding,
            "orphaned_queues": sharding.orphaned_queues,
            "sharding_section": sharding.sharding_section,
            "sharding_json": sharding.sharding_json,
            "active_services": plan.active_services,
            "application_plan": plan.application_plan,
            "application_units": units.application_units,
            "application_unit_files": units.application_unit_files,
            "removed_units": units.removed_units,
            "nginx_snippet_files": nginx.nginx_snippet_files,
        }
