"""The repository's root on the path, so that plugins are imported as Ansible's loader finds them."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
