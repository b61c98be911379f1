"""Lets a program of this release be started with any Python: it continues under the release's own virtualenv."""

import os
import sys
from pathlib import Path

DEPLOY_ROOT = Path(__file__).resolve().parents[2]


def setup_path() -> None:
    """Put the release on sys.path and, where `.venv` exists, replace the process by the virtualenv's interpreter."""
    venv = DEPLOY_ROOT / ".venv"
    python = venv / "bin" / "python"
    if python.exists() and Path(sys.prefix).resolve() != venv.resolve():
        os.execv(python, [str(python), *sys.orig_argv[1:]])
    if str(DEPLOY_ROOT) not in sys.path:
        sys.path.insert(0, str(DEPLOY_ROOT))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "zproject.settings")
