"""The filter that resolves what differs between releases in an application's contract."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))
from plugin_utils.application.versions import contract_for  # noqa: E402


class FilterModule:
    """Releases of an application."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"contract_for": contract_for}
