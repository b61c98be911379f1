"""Where a build happens, and as whom: the scratch folder, the account and the environment."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from . import masking

TAIL = 25
COVER = """
count=$1; shift
while [ "$count" -gt 0 ]; do
    if [ -n "$1" ]; then /usr/bin/mount --bind "$1" "$2" || exit 125
    else /usr/bin/mount -t tmpfs -o mode=0755 none "$2" || exit 125
    fi
    shift 2; count=$((count - 1))
done
exec "$@"
"""
"""Takes pairs of a folder and a path: puts the folder over the path, an empty one for none; then runs the rest."""


class Failure(Exception):
    """A build that cannot go on: one line, and the last lines of the output that explain it."""

    def __init__(self, line: str, output: str = ""):
        super().__init__(line)
        self.output = output


class Workshop:
    """What every part of a build needs to know."""

    def __init__(self, spec: dict[str, Any]):
        self.spec = spec
        self.directory = Path(spec["directory"])
        self.scratch = self.directory / "work"
        self.venv = Path(spec["venv"])
        # The same interpreter as the hosts': never the one of a virtualenv that this happens to run in.
        self.python: str = getattr(sys, "_base_executable", sys.executable)
        self.secrets = masking.secrets_of(spec["environment"])
        try:
            account = pwd.getpwnam(spec["account"])
        except KeyError:
            raise Failure(f"this host has no account {spec['account']} to build as") from None
        self.uid, self.gid = account.pw_uid, account.pw_gid
        self.environment = {
            "HOME": str(self.scratch),
            "LANG": "C.UTF-8",
            "PATH": f"{self.venv}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "VIRTUAL_ENV": str(self.venv),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_CACHE_DIR": str(self.directory / "pip-cache"),
            "npm_config_cache": str(self.directory / "npm-cache"),
            "npm_config_update_notifier": "false",
            **spec["environment"],
        }
        self.notes: list[str] = []
        # Paths of the host at which steps find a folder of ours.
        self.mounts: dict[str, Path] = {}

    def mask(self, text: str) -> str:
        """Return a text without credentials."""
        return masking.mask(text, self.secrets)

    def say(self, text: str) -> None:
        """Show progress."""
        print(f"{time.strftime('%H:%M:%S')} {self.mask(text)}", file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """Remember what the operator should know though nothing failed."""
        self.say(text)
        self.notes.append(self.mask(text))

    def prepare(self) -> None:
        """Make an empty scratch folder, and the folders that downloads are kept in."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        given = {self.spec["source"], self.spec["venv_archive"]}
        for path in [path for kind in ("source", "venv", "tar.zst") for path in self.directory.glob(f"*.{kind}")]:
            # Of a build that failed, for another input.
            if str(path) not in given:
                path.unlink()
        (self.scratch / "release").mkdir(parents=True)
        for name in ("pip-cache", "npm-cache"):
            (self.directory / name).mkdir(exist_ok=True)
            self.give(self.directory / name)

    def give(self, path: Path) -> None:
        """Give a whole tree to the account that builds."""
        change_owner(path, self.uid, self.gid)

    def folder(self, name: str) -> Path:
        """Make a folder of the account that builds in the scratch folder."""
        path = self.scratch / name
        path.mkdir()
        os.chown(path, self.uid, self.gid)
        return path

    def command(self, argv: list[str]) -> list[str]:
        """Return a command that does not see what the contract hides: a builder may serve at the same time."""
        covers = {path: "" for path in self.spec["hide"] if os.path.isdir(path)}
        covers |= {path: str(folder) for path, folder in self.mounts.items()}
        if not covers or os.geteuid() != 0:
            return argv
        # By their whole names, since PATH begins with a folder of the account that builds.
        drop = ["/usr/bin/setpriv", f"--reuid={self.uid}", f"--regid={self.gid}", "--clear-groups", "--"]
        pairs = [word for path, folder in covers.items() for word in (folder, path)]
        covered = ["/bin/sh", "-c", COVER, "sh", str(len(covers)), *pairs]
        return ["/usr/bin/unshare", "--mount", "--propagation=private", "--", *covered, *drop, *argv]

    def check_hiding(self) -> None:
        """Refuse a host where nothing can be hidden from a build that must not see it."""
        command = self.command(["/bin/true"])
        if len(command) > 1 and subprocess.run(command, capture_output=True).returncode:
            hidden = " and ".join(path for path in self.spec["hide"] if os.path.isdir(path))
            raise Failure(
                f"the build must not see {hidden}, and this host has no mount namespaces for it: "
                "put another one into the group builder"
            )

    def try_run(self, argv: list[str], directory: Path, extra: dict[str, str] | None = None) -> tuple[int, str]:
        """Run a command as the account that builds; return its exit status and its output, without credentials."""
        command = self.command(argv)
        options: dict[str, Any] = {}
        if self.uid != os.geteuid() and command is argv:
            options = {"user": self.uid, "group": self.gid, "extra_groups": []}
        try:
            done = subprocess.run(
                command,
                cwd=directory,
                env={**self.environment, **(extra or {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                **options,
            )
        except OSError as error:
            return 127, self.mask(str(error))
        return done.returncode, self.mask(done.stdout)

    def run(self, argv: list[str], directory: Path, extra: dict[str, str] | None = None) -> str:
        """Run a step; one that fails ends the build."""
        code, output = self.try_run(argv, directory, extra)
        if code:
            lines = [line for line in output.splitlines() if line.strip()]
            last = lines[-1].strip() if lines else "it printed nothing"
            shown = self.mask(" ".join(argv))
            raise Failure(f"{shown} failed with {code}: {last}", "\n".join(lines[-TAIL:]))
        return output


def change_owner(path: Path, uid: int, gid: int) -> None:
    """Change the owner of a whole tree, never following a link."""
    os.lchown(path, uid, gid)
    for root, folders, files in os.walk(path):
        for name in folders + files:
            os.lchown(os.path.join(root, name), uid, gid)


def inside(root: Path, relative: str) -> Path:
    """Return a path of a tree, after links; the account that builds must not lead root elsewhere."""
    path = root / relative
    real, home = path.resolve(), root.resolve()
    if real != home and home not in real.parents:
        raise Failure(f"{relative} leads outside of the release")
    return path
