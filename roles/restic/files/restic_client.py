"""What the programs of the role restic share: how restic is run, its locks, its answers, and where state is kept.

Secrets reach restic through files in memory that have no name and are gone with the process: the password, and this
host's certificate with its key in one file, as restic wants it.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import re
import signal
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

LOCK_PAUSE_SECONDS = 20.0
LOCK_STALE_SECONDS = 1800.0
"""restic renews a lock every five minutes, and takes one for nobody's after this time."""
CONNECT_SECONDS = 10.0
CONNECT_TRIES = 6
"""The server restarts when its certificate is renewed."""
CONNECT_PAUSE_SECONDS = 5.0
INFO, NOTICE, WARNING, ERROR = 6, 5, 4, 3
LOCKED = re.compile(r"already locked(?: exclusively)?(?: by [^\n\"\\]*)?")
WRONG_KEY = re.compile(r"wrong password or no key found")
ABSENT = re.compile(r"Is there a repository at the following location|repository does not exist")
FRACTION = re.compile(r"\.\d+")
PASSED_ON = ("GOMEMLIMIT", "GOMAXPROCS", "GOGC", "TMPDIR")


class ResticError(Exception):
    """Told in one line."""


def say(text: str, level: int = INFO) -> None:
    """Write one line to the journal, with a priority."""
    print(f"<{level}>{text}", flush=True)


def load_config(path: str) -> dict[str, Any]:
    """Return a program's settings; systemd hands them to a unit that may not read the file itself."""
    handed = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nonexistent")) / os.path.basename(path)
    place = handed if handed.is_file() else Path(path)
    try:
        config: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResticError(f"the settings {place} cannot be read: {error}") from None
    return config


# ---- times -----------------------------------------------------------------------------------------------------------


def utc(moment: datetime) -> str:
    """Return a time as it is shown and kept."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def now() -> str:
    """Return the time."""
    return utc(datetime.now(UTC))


def parse_time(text: str) -> datetime:
    """Read a time; one without a zone is UTC. A snapshot has nine digits behind the second, which nobody needs."""
    try:
        moment = datetime.fromisoformat(FRACTION.sub("", text.strip()))
    except ValueError:
        raise ResticError(f"'{text}' is no time; write it as 2026-03-01T12:30:00Z") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


# ---- state -----------------------------------------------------------------------------------------------------------


def write_atomic(path: str, text: str, mode: int = 0o640) -> None:
    """Replace a file as a whole."""
    with tempfile.NamedTemporaryFile("w", dir=os.path.dirname(path), delete=False, encoding="utf-8") as stream:
        try:
            stream.write(text)
            os.fchmod(stream.fileno(), mode)
            stream.close()
            os.replace(stream.name, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(stream.name)
            raise


def read_state(path: str) -> dict[str, Any]:
    """Return the state that an earlier run left; one that cannot be read counts as none."""
    try:
        state = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def write_state(path: str, state: Mapping[str, Any]) -> None:
    """Replace the state."""
    write_atomic(path, json.dumps(state, indent=1, ensure_ascii=False) + "\n")


class Metric(NamedTuple):
    """One figure for Prometheus."""

    name: str
    help: str
    value: float
    labels: Mapping[str, str] = {}


def exposition(metrics: Sequence[Metric]) -> str:
    """Return metrics as a textfile collector wants them; those of one name stand together."""
    lines = []
    for name in dict.fromkeys(metric.name for metric in metrics):
        group = [metric for metric in metrics if metric.name == name]
        lines += [f"# HELP {name} {group[0].help}", f"# TYPE {name} gauge"]
        for metric in group:
            labels = ",".join(
                '{}="{}"'.format(key, str(value).replace("\\", r"\\").replace('"', r"\""))
                for key, value in metric.labels.items()
            )
            lines.append(f"{name}{{{labels}}} {metric.value:.15g}" if labels else f"{name} {metric.value:.15g}")
    return "\n".join(lines) + "\n"


def write_metrics(directory: str, name: str, metrics: Sequence[Metric]) -> None:
    """Leave metrics for the node exporter, where there is one."""
    if directory and os.path.isdir(directory):
        write_atomic(os.path.join(directory, name), exposition(metrics), 0o644)


@contextlib.contextmanager
def alone(path: str, seconds: float) -> Iterator[None]:
    """Let one process at a time go on; wait for the one before."""
    with open(path, "a", encoding="utf-8") as stream:
        end = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise ResticError("another run of it has not ended") from None
                time.sleep(min(1.0, max(0.05, seconds)))
        yield


# ---- running restic --------------------------------------------------------------------------------------------------


class Done(NamedTuple):
    """How a run of restic ended."""

    status: int
    lines: list[str]
    said: str

    @property
    def locked(self) -> bool:
        """Whether somebody else's lock was in the way."""
        return self.status != 0 and bool(LOCKED.search(self.said))


def messages(lines: Sequence[str]) -> list[dict[str, Any]]:
    """Return the JSON objects among lines."""
    found = []
    for line in lines:
        if line.startswith("{"):
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
    return found


def reason(done: Done, repository: str) -> str:
    """Return why restic failed, as one line for a person."""
    if WRONG_KEY.search(done.said):
        return f"the repository {repository} does not open with vault_restic_password; nothing was changed there"
    locked = LOCKED.search(done.said)
    if locked:
        return f"the repository {repository} is {locked.group(0)}"
    lines = [line.strip() for line in done.said.splitlines() if line.strip()]
    told = [item["message"] for item in messages(lines) if item.get("message_type") == "exit_error"]
    if ABSENT.search(done.said):
        why = [line for line in lines if "unable to open config file" in line]
        cause = (told or why or [""])[0].split("unable to open config file:")[-1].splitlines()
        told_cause = cause[0].strip() if cause else "it has no config"
        missing = re.search(r"does not exist|no such file|has no config", told_cause, re.I)
        return f"{'there is no repository at' if missing else 'cannot open'} {repository}: {told_cause}"
    plain = [line for line in lines if not line.startswith(("{", "\x1b"))]
    fatal = [line.removeprefix("Fatal: ") for line in plain if line.startswith("Fatal: ")]
    if told:
        return " ".join(str(told[-1]).removeprefix("Fatal: ").split())
    return (fatal or plain or [f"restic ended with status {done.status}"])[-1]


def memory_file(name: str, content: bytes) -> int:
    """Return a descriptor of a file in memory, which a program can read by /proc/self/fd."""
    descriptor = os.memfd_create(name)
    with open(descriptor, "wb", closefd=False) as stream:
        stream.write(content)
    return descriptor


class Restic:
    """Runs restic on one repository."""

    def __init__(self, config: Mapping[str, Any], user: str = "") -> None:
        self.config, self.user = config, user
        self.repository: str = config["repository"]
        self.binary: str = config.get("binary", "/usr/bin/restic")
        self.cache: str = config.get("cache", "")
        self.over_rest = self.repository.startswith("rest:")
        self.descriptors = {"password": memory_file("password", config["password"].encode())}
        if self.over_rest:
            self.descriptors["identity"] = memory_file("identity", self.identity())

    def identity(self) -> bytes:
        """Return certificate and key of this host. They are read anew for each run: a renewed one is used at once."""
        try:
            return b"\n".join(Path(self.config[name]).read_bytes() for name in ("certificate", "private_key"))
        except OSError as error:
            raise ResticError(f"this host's certificate cannot be read: {error}") from None

    def arguments(self) -> list[str]:
        """Return what every call has in common."""
        words = [self.binary, "--repo", self.repository]
        words += ["--password-file", f"/proc/self/fd/{self.descriptors['password']}"]
        words += ["--cache-dir", self.cache] if self.cache else ["--no-cache"]
        if "identity" in self.descriptors:
            words += ["--tls-client-cert", f"/proc/self/fd/{self.descriptors['identity']}"]
        if self.config.get("ca") and not self.repository.startswith("/"):
            words += ["--cacert", self.config["ca"]]
        for name, value in (self.config.get("options") or {}).items():
            words += ["--option", f"{name}={value}"]
        return words

    def environment(self) -> dict[str, str]:
        """Return restic's environment: nothing of the caller's but bounds of memory."""
        environment = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "RESTIC_PROGRESS_FPS": "0.5"}
        environment |= {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        if self.cache:
            # Packs are put together in files; /tmp may be in memory.
            environment["TMPDIR"] = self.cache
        return environment | {name: str(value) for name, value in (self.config.get("environment") or {}).items()}

    def start(self, words: Sequence[str], **more: Any) -> subprocess.Popen[str]:
        """Start restic, as another user where one was given."""
        if self.user and os.geteuid() == 0:
            more |= {"user": self.user, "group": self.user, "extra_groups": []}
        fds = (*self.descriptors.values(), *more.pop("fds", ()))
        try:
            return subprocess.Popen(
                [*self.arguments(), *words],
                env=self.environment(),
                pass_fds=fds,
                text=True,
                errors="replace",
                stdout=subprocess.PIPE,
                **more,
            )
        except OSError as error:
            raise ResticError(f"restic cannot be started: {error}") from None

    def once(
        self,
        words: Sequence[str],
        cwd: str | None = None,
        stdin: int | None = None,
        heard: Callable[[str], None] | None = None,
    ) -> Done:
        """Run restic to its end. heard: gets each line of the output, which is then not kept."""
        lines: list[str] = []
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
            if stdin is not None:
                os.lseek(stdin, 0, os.SEEK_SET)
            given = subprocess.DEVNULL if stdin is None else stdin
            process = self.start(words, cwd=cwd, stdin=given, stderr=errors)
            assert process.stdout
            try:
                for line in process.stdout:
                    (heard or lines.append)(line.rstrip("\n"))
                status = process.wait()
            except BaseException:
                # restic takes its lock with it when it is asked to end.
                process.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(20)
                process.kill()
                raise
            errors.seek(0)
            return Done(status, lines, errors.read())

    def run(self, words: Sequence[str], wait: float | None = None, **more: Any) -> Done:
        """Run restic; while a lock is in the way, remove those that nobody holds any more and try again."""
        seconds = float(self.config.get("lock_wait", 0)) if wait is None else wait
        end, told = time.monotonic() + seconds, False
        while (done := self.once(words, **more)).locked and time.monotonic() < end:
            if not told:
                told = True
                say(f"waiting: {reason(done, self.repository)}", NOTICE)
            self.drop_stale_locks()
            time.sleep(min(LOCK_PAUSE_SECONDS, max(0.1, end - time.monotonic())))
        return done

    def drop_stale_locks(self) -> list[str]:
        """Remove the locks that were not renewed for half an hour, as a process that was killed leaves them.

        Not by `restic unlock`: that also takes a lock of this host for nobody's when its process may not be sent a
        signal. The server's user would so remove the lock of a backup that runs as root here, and prune beside it.
        """
        stale = []
        for name in self.once(["list", "locks", "--no-lock"]).lines:
            if not re.fullmatch(r"[0-9a-f]{64}", name.strip()):
                continue
            # One that cannot be read was removed just now.
            content = messages([" ".join(self.once(["cat", "lock", name.strip(), "--no-lock"]).lines)])
            made = content[0].get("time") if content else None
            if made and time.time() - parse_time(made).timestamp() > LOCK_STALE_SECONDS:
                stale.append(name.strip())
        for name in stale:
            self.drop_lock(name)
        return stale

    def drop_lock(self, name: str) -> None:
        """Remove one lock; somebody else may have done so by now."""
        if self.repository.startswith("/"):
            Path(self.repository, "locks", name).unlink(missing_ok=True)
        elif self.over_rest:
            with contextlib.suppress(OSError, http.client.HTTPException):
                self.request("DELETE", f"locks/{name}")
        else:
            # In S3 all that use restic are root, and may send signals to each other.
            self.once(["unlock"])

    def answer(self, words: Sequence[str], wait: float | None = None) -> list[str]:
        """Run restic and return what it wrote; raise when it failed."""
        done = self.run(words, wait)
        if done.status:
            raise ResticError(reason(done, self.repository))
        return done.lines

    def version(self) -> tuple[int, ...]:
        """Return restic's version."""
        try:
            text = subprocess.run([self.binary, "version"], capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError) as error:
            raise ResticError(f"restic cannot be started: {error}") from None
        found = re.search(r"restic (\d+)\.(\d+)", text)
        return (int(found.group(1)), int(found.group(2))) if found else (0, 0)

    def snapshots(self, tag: str = "", host: str = "") -> list[dict[str, Any]]:
        """Return the snapshots, the oldest first.

        Their list needs no lock: what a prune removes meanwhile was forgotten before.
        """
        words = ["snapshots", "--json", "--no-lock"]
        words += ["--tag", tag] if tag else []
        words += ["--host", host] if host else []
        text = "\n".join(self.answer(words))
        found = json.loads(text) if text.strip() else []
        return sorted((simplified(item) for item in found or []), key=lambda item: parse_time(item["time"]))

    # ---- is somebody there -------------------------------------------------------------------------------------------

    def connect(self, tries: int = CONNECT_TRIES) -> None:
        """Make sure that the server answers and has the repository: restic itself may wait for a quarter of an hour."""
        if not self.over_rest:
            return
        why = ""
        for attempt in range(tries):
            if attempt:
                time.sleep(CONNECT_PAUSE_SECONDS)
            try:
                status = self.request("HEAD", "config")
            except (OSError, http.client.HTTPException) as error:
                why = str(getattr(error, "verify_message", "") or error.__class__.__name__ + ": " + str(error))
                continue
            if status == 404:
                raise ResticError(f"there is no repository at {self.repository} yet; site.yml makes it")
            if status < 400:
                return
            why = f"status {status}"
        raise ResticError(f"the server of {self.repository} does not answer: {why}")

    def request(self, method: str, name: str) -> int:
        """Return the status of a request for a file of the repository on the backup host's server."""
        parts = urlsplit(self.repository.removeprefix("rest:"))
        context = ssl.create_default_context(cafile=self.config["ca"])
        context.load_cert_chain(self.config["certificate"], self.config["private_key"])
        connection = http.client.HTTPSConnection(
            parts.hostname or "", parts.port or 443, timeout=CONNECT_SECONDS, context=context
        )
        try:
            connection.request(method, f"{parts.path.rstrip('/')}/{name}")
            return connection.getresponse().status
        finally:
            connection.close()


def simplified(snapshot: Mapping[str, Any]) -> dict[str, Any]:
    """Return what matters of a snapshot. Its size is known since restic 0.17."""
    summary = snapshot.get("summary") or {}
    return {
        "id": snapshot["id"],
        "time": utc(parse_time(snapshot["time"])),
        "host": snapshot.get("hostname", ""),
        "tags": list(snapshot.get("tags") or []),
        "paths": list(snapshot.get("paths") or []),
        "files": summary.get("total_files_processed"),
        "bytes": summary.get("total_bytes_processed"),
    }
