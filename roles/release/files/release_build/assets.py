"""What a release tarball brings along and a checkout does not: made here, with tools that are gone afterwards."""

from __future__ import annotations

from pathlib import Path

from .pip import Pip
from .workshop import Failure, Workshop, inside


def missing(shop: Workshop, tree: Path) -> bool:
    """Tell whether the assets have to be made; refuse a source without them that nothing can be done about."""
    assets = shop.spec["assets"]
    if not assets or not assets["creates"]:
        return False
    if inside(tree, assets["creates"]).exists():
        shop.say(f"the source has its own {assets['creates']}")
        return False
    if not assets["steps"]:
        raise Failure(
            f"the source has no {assets['creates']}, and the profile does not make it: take a release tarball"
        )
    return True


def make(shop: Workshop, tree: Path) -> None:
    """Make the assets."""
    assets = shop.spec["assets"]
    folders = []
    environment = dict(assets["environment"])
    path = shop.environment["PATH"]
    if assets["tools"]:
        shop.say(f"tools: {', '.join(assets['tools'])}")
        tools = shop.folder("tools")
        shop.run([shop.python, "-m", "venv", str(tools)], shop.scratch)
        Pip(shop, tools).install(*assets["tools"], wheels_alone=False)
        folders.append(f"{tools}/bin")
    if assets["npm"]:
        shop.say(f"npm: {', '.join(assets['npm'])}")
        prefix = shop.folder("npm")
        command = ["npm", "install", "--global", f"--prefix={prefix}", "--no-audit", "--no-fund", *assets["npm"]]
        shop.run(command, shop.scratch, {"PATH": ":".join([*folders, path])})
        folders.insert(0, f"{prefix}/bin")
    # The release's own Python before that of the tools.
    environment["PATH"] = ":".join([f"{shop.venv}/bin", *folders, environment.get("PATH", path)])
    for place, name in assets.get("mounts", {}).items():
        # Some of a release's own tools know one path alone. What they find there is ours, and gone afterwards.
        Path(place).mkdir(parents=True, exist_ok=True)
        shop.mounts[place] = shop.folder(name)
    for step in assets["steps"]:
        filled = [word.replace("{tools}", str(shop.scratch / "tools")) for word in step]
        shop.say(" ".join(filled))
        shop.run(filled, tree, environment)
    shop.mounts.clear()
    if not inside(tree, assets["creates"]).exists():
        raise Failure(f"the steps that make the assets have made no {assets['creates']}")
