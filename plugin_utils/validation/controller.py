"""What is on the controller: versions, the release artefact, the application's profile."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path

from .places import at, short

# Tested with these; site_vault and the origins in messages stand on internals that move between minor versions.
CORE_MINIMUM = (2, 19)
CORE_BELOW = (2, 21)
PYTHON_MINIMUM = (3, 11)
_SHA256 = re.compile(r"[0-9a-fA-F]{64}\Z")


def version_problems(core: str, python: tuple[int, ...]) -> Iterable[str]:
    """Yield an ansible-core or Python that this repository is not tested with."""
    found = tuple(int(part) for part in re.findall(r"\d+", core)[:2])
    if not CORE_MINIMUM <= found < CORE_BELOW:
        wanted = f"{'.'.join(map(str, CORE_MINIMUM))} or later, below {'.'.join(map(str, CORE_BELOW))}"
        yield f"ansible-core {core} is not supported, only {wanted}; run tools/setup and use .venv/bin/ansible-playbook"
    if python < PYTHON_MINIMUM:
        shown, wanted = ".".join(map(str, python[:3])), ".".join(map(str, PYTHON_MINIMUM))
        yield f"Python {shown} on this machine is too old for the plugins; run Ansible on Python {wanted} or later"


def profile_problems(profile: str | None, root: Path, where: str) -> Iterable[str]:
    """Yield an application profile that there is no file for."""
    folder = root / "playbooks" / "profiles"
    if profile and not (folder / f"{profile}.yml").is_file():
        names = sorted(path.stem for path in folder.glob("*.yml")) or [f"one that has a file in {short(folder)}"]
        yield at(
            where,
            f"`app_profile` cannot be {profile}; choose {' or '.join(names)}",
        )


def shelf_problems(profile: str | None, shelf: Path, where: str) -> Iterable[str]:
    """Yield what is wrong with the newest artefacts that playbooks/build.yml left in `shelf`, one a distribution."""
    indexes = sorted(path for path in shelf.glob(f"{profile}-*.json") if not path.name.endswith(".tar.zst.json"))
    if not indexes:
        yield at(where, f"there is no artefact of {profile} yet; run playbooks/build.yml, or set `release_artifact`")
    for index in indexes:
        try:
            entry = json.loads(index.read_text(encoding="utf-8"))
            artifact, checksum = entry["artifact"], entry["sha256"]
        except (ValueError, KeyError, TypeError):
            yield at(short(index), "no entry of an artefact in it; remove the file and run playbooks/build.yml")
            continue
        yield from artifact_problems(str(shelf / artifact), checksum, shelf, where, short(index))


def artifact_problems(
    artifact: str | None,
    checksum: str | None,
    root: Path,
    where: str,
    checksum_from: str = "release_artifact_sha256",
) -> Iterable[str]:
    """Yield a release artefact that is missing or is not what its checksum says.

    artifact: URL, or path on the controller (relative to `root`). checksum: expected SHA-256, may be empty.
    checksum_from: what says so, for the message.
    """
    if checksum and not _SHA256.match(checksum):
        yield at(where, f"`{checksum_from}` {checksum} is no SHA-256; write the 64 digits that sha256sum prints")
        return
    if not artifact:
        yield at(where, "`release_artifact` is empty; run playbooks/build.yml, or give a path or URL")
        return
    if re.match(r"[a-z]+://", artifact):
        return  # fetched and compared by the role, on the hosts
    path = root / Path(artifact).expanduser()
    if not path.is_file():
        yield at(
            where, f"the artefact {short(path)} does not exist; run playbooks/build.yml, or correct `release_artifact`"
        )
        return
    sidecar = path.with_name(f"{path.name}.sha256")
    expected = {}
    if checksum:
        expected[checksum_from] = checksum.lower()
    if sidecar.is_file():
        words = sidecar.read_text(encoding="utf-8", errors="replace").split()
        if not words or not _SHA256.match(words[0].removeprefix("\\")):
            yield at(short(sidecar), "no line of sha256sum in it; run playbooks/build.yml again, or remove the file")
            return
        expected[short(sidecar)] = words[0].removeprefix("\\").lower()
    if expected:
        with path.open("rb") as stream:
            actual = hashlib.file_digest(stream, "sha256").hexdigest()
        wrong = [name for name, digest in expected.items() if digest != actual]
        if wrong:
            yield at(
                where,
                f"the artefact {short(path)} has the SHA-256 {actual}, not the one in {' and '.join(wrong)}; "
                "copy or build it again, do not deploy it",
            )
