"""The release's virtualenv, at the path that it has on every host: its programs carry it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from . import pip, prebuilt
from .workshop import Workshop, change_owner, inside

MARKER = ".zulip-ha.json"


def ensure(shop: Workshop, tree: Path) -> Path:
    """Build the virtualenv, or take the given one. It is only trusted with its marker, which is written last."""
    venv = shop.venv
    if (venv / MARKER).exists():
        shop.say(f"virtualenv {venv} is there already")
        return venv
    venv.parent.mkdir(parents=True, exist_ok=True)
    for other in venv.parent.iterdir():
        # What builds that failed have left; what an app host is unpacking has another name with a dot.
        unfinished = not other.name.startswith(".") and not (other / MARKER).exists()
        if unfinished or other.name.startswith(prebuilt.TEMPORARY):
            shutil.rmtree(other)
    shop.say(f"virtualenv {venv}")
    if shop.spec["venv_archive"]:
        prebuilt.take(shop, venv)
        shop.give(venv)
    else:
        pip.requirement_files(shop, tree)
        venv.mkdir(mode=0o755)
        os.chown(venv, shop.uid, shop.gid)
        shop.run([shop.python, "-m", "venv", str(venv)], shop.scratch)
        pip.fill(shop, tree, venv)
    for name, text in shop.spec["venv_files"].items():
        path = inside(venv, name)
        path.unlink(missing_ok=True)
        path.write_text(text, encoding="utf-8")
        change_owner(path, shop.uid, shop.gid)
    return venv
