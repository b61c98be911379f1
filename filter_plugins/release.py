"""Which artefact a host is to run, and whether it can."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))
from plugin_utils.application.plan import application_plan  # noqa: E402
from plugin_utils.application.versions import release_number  # noqa: E402

NO_RELEASE: dict[str, Any] = {"artifact": "none", "sha256": "none", "manifest": {"id": "none", "deployment": "none"}}
"""Stands for a release where none was built yet: check mode shows what it would do without one."""


def release_entry(text: str | None) -> dict[str, Any]:
    """Return what an artefact's summary says, or what stands for none."""
    if not text:
        return NO_RELEASE
    entry: dict[str, Any] = json.loads(text)
    return entry


def release_problems(
    entry: Mapping[str, Any],
    contract: Mapping[str, Any],
    facts: Mapping[str, Any],
    *,
    current: Mapping[str, Any] | None = None,
    queues: Any = (),
    options: Any = (),
    programs: Mapping[str, Any] | None = None,
    postgresql: int | str | None = None,
    downgrade: bool = False,
) -> list[str]:
    """Return why a host cannot run a release, one line each.

    entry: of the artefact (`release_entry`). contract: the release's own. facts: of the host. current: what the host
    runs now (`id`, `version`), empty for nothing. queues, options, programs: the operator's choices. postgresql: major
    version of the site's database. downgrade: whether an older release than the current one is wanted.
    """
    problems = []
    manifest = entry["manifest"]
    if manifest["id"] != "none":
        problems += _artifact_problems(manifest, facts)
        version, running = manifest["version"], (current or {}).get("version")
        oldest = contract["build"].get("oldest")
        if oldest and release_number(version) < release_number(oldest):
            problems.append(f"the release {version} is older than {oldest}, the oldest that is supported")
        same = (current or {}).get("profile", manifest["profile"]) == manifest["profile"]
        if running and same and release_number(version) < release_number(running) and not downgrade:
            problems.append(
                f"the release {version} is older than {running}, which runs: going back is playbooks/rollback.yml's, "
                "and migrations may not allow it. Build a newer one, or set release_allow_downgrade"
            )
    wanted = contract.get("database", {}).get("postgresql")
    if wanted and postgresql and not wanted["minimum"] <= int(postgresql) <= wanted["maximum"]:
        what = f"the release {manifest['version']}" if manifest["id"] != "none" else "the newest release"
        problems.append(
            f"{what} supports PostgreSQL {wanted['minimum']} to {wanted['maximum']}, and postgresql_version is "
            f"{postgresql}; take another release or another postgresql_version"
        )
    try:
        application_plan(contract, [9800], queues=queues, options=options, programs=programs)
    except Exception as error:  # noqa: BLE001
        problems.append(str(error))
    return problems


def _artifact_problems(manifest: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    """Return what the artefact was built for, where that is not this host."""
    pairs = {
        "distribution": (manifest.get("codename"), facts.get("distribution_release")),
        "architecture": (manifest.get("architecture"), facts.get("architecture")),
    }
    return [
        f"the artefact was built for the {what} {built}, and the host has {own}: build one there "
        "(playbooks/build.yml), or name it in release_artifact"
        for what, (built, own) in pairs.items()
        if built and own and built != own
    ]


class FilterModule:
    """Releases."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"release_entry": release_entry, "release_problems": release_problems}
