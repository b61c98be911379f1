"""Filters of a release's migrations."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))
from plugin_utils.application import migrations  # noqa: E402


class FilterModule:
    """Filters that say what migrations mean for code that is older, and how they are run."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "migrations_known": migrations.migrations_known,
            "migrations_judgement": migrations.migrations_judgement,
            "careful_migrate": migrations.careful_migrate,
        }
