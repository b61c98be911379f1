#!/usr/bin/env python3
"""Django's command line for this release."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from scripts.lib.setup_path import setup_path  # noqa: E402

if __name__ == "__main__":
    setup_path()
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
