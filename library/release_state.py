#!/usr/bin/python
"""Brings a release to a host: verified, whole or not at all, and pointed at by links."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: release_state
short_description: Unpack, verify and activate a release of the application
description:
  - Says in one execution whether a host has a release, and what is missing.
  - Unpacks an artefact into a temporary folder, verifies the SHA-256 sum of every file against the artefact's manifest
    and renames the folder only then, so that a run that is killed leaves nothing that looks complete.
  - Keeps the links C(current), C(last) and C(next) in the deployments' folder. The first release of a host becomes
    C(current) at once; another one becomes C(next) until I(activate).
options:
  release:
    description: The manifest's summary of the wanted release, as C(release-build) wrote it.
    type: dict
    required: true
  archive:
    description: >-
      The artefact on the host. It may be absent when the release is there already; it is removed once unpacked.
    type: path
    required: true
  sha256:
    description: SHA-256 sum of the artefact.
    type: str
    required: true
  deployments:
    description: Folder of the deployments and of the links.
    type: path
    required: true
  owner:
    description: >-
      Account that the application runs as. May make sockets in the deployments' folder, and owns nothing of a release.
    type: str
    required: true
  static_from:
    description: Folder of the release's static files, relative to the release. Empty when it has none.
    type: str
    default: ""
  static_to:
    description: >-
      Folder that static files are served from. Files of earlier releases stay, for pages that are still open.
    type: path
    default: ""
  activate:
    description: Make the release C(current), and the one before it C(last).
    type: bool
    default: false
  keep:
    description: Number of deployments that stay on the host, apart from those that a link points to.
    type: int
    default: 3
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
author:
  - zulip-ha (@zulip-ha)
"""

EXAMPLES = r"""
- name: Release | Read what the host has
  release_state:
    release:
      format: 1
      id: 0f3a
      deployment: 2026-01-31-12-00-00
      venv: /srv/zulip-venvs/0f3a
      codename: trixie
      python: "3.13"
      architecture: x86_64
    archive: /var/lib/zulip-ha/standin-1.0-trixie-0f3a.tar.zst
    sha256: 9b74c9897bac770ffc029102a200c5de5c7ae0b8b8d4a5a3d0a8e9c3c4e9c1b2
    deployments: /home/zulip/deployments
    owner: zulip
"""

RETURN = r"""
needs:
  description: What must be had before the release can be unpacked, C(account) or C(archive).
  returned: always
  type: list
  elements: str
path:
  description: The release's folder.
  returned: always
  type: str
current:
  description: Name of the deployment that C(current) points to.
  returned: always
  type: str
activation_due:
  description: Whether the wanted release is not C(current) yet.
  returned: always
  type: bool
"""

import hashlib  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import pwd  # noqa: E402
import shutil  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tarfile  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import IO, Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402

FORMAT = 1
MARKER = ".zulip-ha.json"
LINKS = ("current", "last", "next")
CHUNK = 1 << 20


class ReleaseError(Exception):
    """A release that must not be used, in one sentence."""


def host_codename(os_release: str = "/etc/os-release") -> str:
    """Return the distribution's code name."""
    for line in Path(os_release).read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition("=")
        if key == "VERSION_CODENAME":
            return value.strip("\"'")
    return ""


def misfit(release: dict[str, Any], codename: str, python: str, architecture: str) -> str | None:
    """Say why a release cannot run on this host."""
    if release.get("format") != FORMAT:
        return f"the artefact has the format {release.get('format')}, this host reads {FORMAT}"
    for name, key, have in (
        ("distribution", "codename", codename),
        ("Python", "python", python),
        ("architecture", "architecture", architecture),
    ):
        if release.get(key) != have:
            return (
                f"the artefact {release.get('id')} was built for {name} {release.get(key)}, this host has {have}: "
                "build one for it"
            )
    return None


def is_complete(folder: Path, release: dict[str, Any]) -> bool:
    """Tell a whole release or virtualenv from the rest of a killed run."""
    try:
        return json.loads((folder / MARKER).read_text(encoding="utf-8")).get("id") == release["id"]
    except (OSError, ValueError, AttributeError):
        return False


def link_name(deployments: Path, link: str) -> str:
    """Return the name of the deployment that a link points to; nothing for none."""
    try:
        return os.path.basename(os.readlink(deployments / link).rstrip("/"))
    except OSError:
        return ""


def set_link(deployments: Path, link: str, name: str) -> None:
    """Point a link at a deployment in one step."""
    temporary = deployments / f".{link}.new"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(deployments / name)
    temporary.replace(deployments / link)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 sum of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class Unpacker:
    """Unpacks one artefact into temporary folders beside the final ones."""

    def __init__(self, manifest: dict[str, Any], targets: dict[str, Path]):
        self.files: dict[str, str] = manifest["files"]
        self.links: dict[str, str] = manifest["links"]
        self.targets = targets
        self.seen: set[str] = set()

    def place(self, name: str) -> Path | None:
        """Return where a member goes; nothing for a part that is not wanted."""
        part, _, rest = name.partition("/")
        if name.startswith("/") or ".." in name.split("/"):
            raise ReleaseError(f"the artefact holds {name}, which leads outside")
        if part not in self.targets:
            return None
        root = self.targets[part]
        path = root / rest if rest else root
        # A link inside the artefact must not carry a later member somewhere else.
        parent = path.parent.resolve() if rest else root.parent.resolve()
        if rest and parent != root.resolve() and root.resolve() not in parent.parents:
            raise ReleaseError(f"the artefact's {name} leads outside through a link")
        return path

    def member(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        """Unpack one member and verify it."""
        path = self.place(member.name)
        if path is None:
            return
        if member.isdir():
            path.mkdir(mode=0o755, exist_ok=True)
        elif member.issym():
            if self.links.get(member.name) != member.linkname:
                raise ReleaseError(f"the artefact's link {member.name} is not the manifest's")
            path.symlink_to(member.linkname)
            self.seen.add(member.name)
            os.utime(path, (member.mtime, member.mtime), follow_symlinks=False)
        elif member.isreg():
            stream = tar.extractfile(member)
            assert stream is not None
            if self.write(path, stream) != self.files.get(member.name):
                raise ReleaseError(f"the artefact's {member.name} has not the sum of the manifest")
            path.chmod(0o755 if member.mode & 0o111 else 0o644)
            os.utime(path, (member.mtime, member.mtime))
            self.seen.add(member.name)
        else:
            raise ReleaseError(f"the artefact's {member.name} is neither file, folder nor link")

    @staticmethod
    def write(path: Path, stream: IO[bytes]) -> str:
        """Copy a stream into a new file and return its sum."""
        digest = hashlib.sha256()
        with path.open("xb") as target:
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
                target.write(chunk)
        return digest.hexdigest()

    def missing(self) -> set[str]:
        """Return what the manifest names in the wanted parts and the artefact did not hold."""
        wanted = {name for name in [*self.files, *self.links] if name.partition("/")[0] in self.targets}
        return wanted - self.seen


def read_manifest(tar: tarfile.TarFile, release: dict[str, Any]) -> dict[str, Any]:
    """Return the artefact's manifest, which is its first member and speaks of the wanted release."""
    first = tar.next()
    stream = tar.extractfile(first) if first is not None and first.name == "manifest.json" else None
    if stream is None:
        raise ReleaseError("the artefact does not begin with a manifest")
    manifest: dict[str, Any] = json.load(stream)
    for key in ("id", "deployment", "venv"):
        if manifest.get(key) != release[key]:
            raise ReleaseError(f"the artefact's {key} is {manifest.get(key)}, wanted is {release[key]}")
    return manifest


def unpack(archive: Path, release: dict[str, Any], finals: dict[str, Path]) -> None:
    """Unpack the parts named in finals, verify them, and only then give them their names."""
    targets = {part: final.parent / f".unpack-{final.name}" for part, final in finals.items()}
    for target in targets.values():
        if target.is_symlink() or target.is_file():
            target.unlink()
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        # Not into what somebody else has made meanwhile.
        target.mkdir(mode=0o755)
    command = ["zstd", "-dc", "--", str(archive)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as tar:
                manifest = read_manifest(tar, release)
                unpacker = Unpacker(manifest, targets)
                for member in tar:
                    unpacker.member(tar, member)
        except tarfile.TarError as error:
            process.kill()
            raise ReleaseError(f"{archive} cannot be read: {error} {process.stderr.read().decode()}".strip()) from error
        except BaseException:
            process.kill()
            raise
    if missing := unpacker.missing():
        raise ReleaseError(f"the artefact lacks {len(missing)} files of its manifest, {min(missing)} first")
    marker = json.dumps({**release, "sha256": file_sha256(archive)}, sort_keys=True) + "\n"
    for target in targets.values():
        (target / MARKER).write_text(marker, encoding="utf-8")
    # A rename may reach the disk before what it renames: after a power cut the new name would hold empty files.
    os.sync()
    for part, target in targets.items():
        shutil.rmtree(finals[part], ignore_errors=True)
        target.rename(finals[part])


def merge_static(source: Path, target: Path) -> int:
    """Add a release's static files to those that are served; return how many were new or different."""
    changed = 0
    target.mkdir(mode=0o755, parents=True, exist_ok=True)
    for path in sorted(source.rglob("*")):
        goal = target / path.relative_to(source)
        if path.is_dir():
            goal.mkdir(mode=0o755, exist_ok=True)
        elif not goal.exists() or goal.stat().st_size != path.stat().st_size or file_sha256(goal) != file_sha256(path):
            temporary = goal.with_name(f".{goal.name}.new")
            shutil.copy2(path, temporary)
            temporary.replace(goal)
            changed += 1
    return changed


def prune(deployments: Path, venvs: Path, keep: int, venv_link: str = ".venv") -> list[str]:
    """Remove the oldest deployments, and virtualenvs that none is left for; return what was removed."""
    linked = {link_name(deployments, link) for link in LINKS}
    # Names are time stamps, so they sort by age. A folder without our marker is not ours to remove.
    ours = sorted(path for path in deployments.iterdir() if not path.is_symlink() and (path / MARKER).is_file())
    spare = [path for path in ours if path.name not in linked]
    removed = []
    for path in spare[: max(len(spare) - keep, 0)]:
        shutil.rmtree(path)
        removed.append(path.name)
    used = {os.path.realpath(path / venv_link) for path in deployments.iterdir() if not path.is_symlink()}
    if removed:
        for venv in venvs.iterdir():
            if (venv / MARKER).is_file() and str(venv) not in used:
                shutil.rmtree(venv)
                removed.append(str(venv))
    return removed


class Release:
    """The wanted release on this host."""

    def __init__(self, params: dict[str, Any], check_mode: bool):
        self.params = params
        self.check_mode = check_mode
        self.release: dict[str, Any] = params["release"]
        self.deployments = Path(params["deployments"])
        self.path = self.deployments / self.release["deployment"]
        self.venv = Path(self.release["venv"])
        self.changes: list[str] = []

    def incomplete(self) -> dict[str, Path]:
        """Return the parts of the release that are not here."""
        parts = {"release": self.path, "venv": self.venv}
        return {part: path for part, path in parts.items() if not is_complete(path, self.release)}

    def needs(self) -> list[str]:
        """Return what is missing to unpack it."""
        result = []
        try:
            pwd.getpwnam(self.params["owner"])
        except KeyError:
            result.append("account")
        if not os.path.exists(self.params["archive"]):
            result.append("archive")
        return result

    def install(self) -> list[str]:
        """Unpack what is not here; return what is missing to do so."""
        parts = self.incomplete()
        if not parts:
            return []
        needs = self.needs()
        self.changes.append(f"release {self.release['deployment']}")
        if needs or self.check_mode:
            return needs
        archive = Path(self.params["archive"])
        digest = file_sha256(archive)
        if digest != self.params["sha256"]:
            raise ReleaseError(
                f"the artefact {archive.name} has the SHA-256 {digest}, wanted is {self.params['sha256']}"
            )
        account = pwd.getpwnam(self.params["owner"])
        self.deployments.mkdir(mode=0o755, parents=True, exist_ok=True)
        # The application makes its sockets here, and must not rename or replace what is not its own.
        os.chown(self.deployments, 0, account.pw_gid)
        self.deployments.chmod(0o1775)
        unpack(archive, self.release, parts)
        archive.unlink()
        return []

    def link(self) -> None:
        """Bring the links to the wanted release."""
        name = self.release["deployment"]
        current = link_name(self.deployments, "current")
        following = link_name(self.deployments, "next")
        activate = self.params["activate"] or not current
        if current == name:
            if following:
                # What had been prepared is no longer wanted.
                self.changes.append("next")
                if not self.check_mode:
                    (self.deployments / "next").unlink()
        elif activate:
            self.changes.append("current")
            if not self.check_mode:
                self.activate(current)
        elif following != name:
            self.changes.append("next")
            if not self.check_mode:
                set_link(self.deployments, "next", name)

    def activate(self, current: str) -> None:
        """Serve the release's static files, beside those of pages that are open, then point current at the release."""
        if self.params["static_from"]:
            merge_static(self.path / self.params["static_from"], Path(self.params["static_to"]))
        if current:
            set_link(self.deployments, "last", current)
        set_link(self.deployments, "current", self.release["deployment"])
        (self.deployments / "next").unlink(missing_ok=True)
        prune(self.deployments, self.venv.parent, self.params["keep"])

    def result(self, needs: list[str], before: str) -> dict[str, Any]:
        """Return what the module returns."""
        name = self.release["deployment"]
        current = link_name(self.deployments, "current")
        return {
            "changed": bool(self.changes),
            "needs": needs,
            "path": str(self.path),
            "current": current,
            "activation_due": current != name,
            "diff": {
                "before": f"current: {before}\n",
                "after": f"current: {current}\n" + "".join(f"changed: {change}\n" for change in self.changes),
            },
        }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "release": {"type": "dict", "required": True},
            "archive": {"type": "path", "required": True},
            "sha256": {"type": "str", "required": True},
            "deployments": {"type": "path", "required": True},
            "owner": {"type": "str", "required": True},
            "static_from": {"type": "str", "default": ""},
            "static_to": {"type": "path", "default": ""},
            "activate": {"type": "bool", "default": False},
            "keep": {"type": "int", "default": 3},
        },
        supports_check_mode=True,
    )
    os.umask(0o022)
    wanted = Release(module.params, module.check_mode)
    python = ".".join(map(str, sys.version_info[:2]))
    try:
        if reason := misfit(wanted.release, host_codename(), python, os.uname().machine):
            raise ReleaseError(reason)
        before = link_name(wanted.deployments, "current")
        needs = wanted.install()
        if not needs:
            wanted.link()
    except (ReleaseError, OSError, ValueError, subprocess.SubprocessError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**wanted.result(needs, before))


if __name__ == "__main__":
    main()
