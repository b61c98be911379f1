"""The backups that a drill restores: the database's with the programs of the role pgbackrest, uploads with restic."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from restore_drill_command import parsed, run
from restore_drill_words import DrillError


class Programs:
    """All calls of the programs of the role pgbackrest."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config, self.paths = config, config["programs"]

    @property
    def data(self) -> Path:
        """The directory of the scratch instance."""
        return Path(self.config["directory"], "data")

    @property
    def socket(self) -> Path:
        """The directory of its socket."""
        return Path(self.config["directory"], "socket")

    def backup(self, *words: str) -> Any:
        """Ask postgresql_backup."""
        return parsed(run([self.paths["backup"], *words, "--json"]), "postgresql_backup")

    def restore(self, verb: str, *words: str) -> Any:
        """Tell postgresql_restore to do something with the scratch instance."""
        text = run([self.paths["restore"], verb, "--directory", str(self.data), *words])
        return parsed(text, "postgresql_restore") if text.strip() else {}

    def choose(self, system_id: str) -> dict[str, Any]:
        """Return the latest backup, after a look at whether it can be restored."""
        words = ["--to", "latest", "--version", str(self.config["version"])]
        chosen: dict[str, Any] = self.backup("choose", *words, *(["--system-id", system_id] if system_id else []))
        return chosen

    def fetch(self, chosen: Mapping[str, Any]) -> None:
        """Bring the files of a backup."""
        words = ["--repo", str(chosen["repo"]), "--set", chosen["set"], "--jobs", str(self.config["jobs"])]
        self.restore("fetch", *words, "--keep-bytes", str(int(self.config["reserve_mb"]) * 1_000_000))

    def recover(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """Start the scratch instance and replay WAL to the end."""
        words = ["--to", "latest", "--repo", str(chosen["repo"]), "--port", str(self.config["port"])]
        words += ["--socket", str(self.socket), "--listen", self.config["address"], "--tls"]
        words += [word for network in self.config["allow"] for word in ("--allow", network)]
        # Half of what the server's unit may use is for what it maps and reads.
        words += ["--keep-running", "--memory-mb", str(self.config["memory_mb"] // 2)]
        words += ["--timeout", str(self.config["timeout"])]
        recovered: dict[str, Any] = self.restore("recover", *words)
        return recovered

    def stop(self) -> None:
        """End the scratch instance."""
        self.restore("stop")

    def remove(self) -> None:
        """Remove its files."""
        self.restore("remove")


class Files:
    """Backups of uploads, by the module that the programs of the role restic share.

    The program itself gives what it restores to the application's user, whom the backup host does not have.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config["uploads"]
        self.module: Any = None
        self.repository: Any = None

    @contextlib.contextmanager
    def opened(self) -> Iterator[Any]:
        """Give the repository, and turn what fails there into an error of ours."""
        if self.module is None:
            spec = importlib.util.spec_from_file_location("restic_client", self.config["client"])
            if spec is None or spec.loader is None or not Path(self.config["client"]).exists():
                raise DrillError(f"{self.config['client']} is missing")
            self.module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(self.module)
        try:
            if self.repository is None:
                self.repository = self.module.Restic(self.module.load_config(self.config["settings"]))
                self.repository.connect()
            yield self.repository
        except self.module.ResticError as error:
            raise DrillError(str(error)) from error

    def snapshots(self) -> list[dict[str, Any]]:
        """Return the snapshots of uploads, whichever host made them, the newest last."""
        with self.opened() as repository:
            found: list[dict[str, Any]] = repository.snapshots(tag="uploads")
        return found

    def names(self, snapshot: str) -> dict[str, int]:
        """Return the size of each file in a snapshot by its name below the folder of uploads."""
        found: dict[str, int] = {}

        def heard(line: str) -> None:
            node = json.loads(line) if line.startswith("{") else {}
            if node.get("type") == "file" and node.get("path"):
                found[str(node["path"]).lstrip("/")] = int(node.get("size") or 0)

        with self.opened() as repository:
            self.check(repository.run(["ls", "--json", "--no-lock", snapshot], heard=heard))
        return found

    def restore(self, snapshot: str, names: Iterable[str], target: Path) -> None:
        """Restore some files of a snapshot into a folder."""
        words = ["restore", snapshot, "--target", str(target)]
        for name in names:
            # A name is no pattern.
            words += ["--include", "/" + re.sub(r"([\\*?\[])", r"\\\1", name)]
        with self.opened() as repository:
            self.check(repository.run(words))

    def check(self, done: Any) -> None:
        """Fail as restic did."""
        if done.status:
            raise DrillError(self.module.reason(done, self.repository.repository))
