"""What managed_files wrote on a host, role by role, and what became of it since.

One JSON file a role (`<state_dir>/managed/<role>.json`) is the ledger; `<role>.d/` beside it holds the last written
content of every file, so that a difference can be shown; of a sensitive one only the masked text. All of it is root's.
"""

from __future__ import annotations

import difflib
import errno
import grp
import hashlib
import json
import os
import pwd
import re
import stat
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

STATE_DIR = "/var/lib/zulip-ha"
ABSENT = "absent"
# Suffix of the file that is renamed over its destination: hidden, and no include directory takes it for one of its own.
STAGED_SUFFIX = ".managed-new"
ROLE_PATTERN = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")
DIFF_MAX_LINES = 200
DIFF_MAX_BYTES = 256 * 1024


class ManagedError(Exception):
    """A failure that is told to the operator in its own words, with more keys of the result."""

    def __init__(self, message: str, **result: Any) -> None:
        super().__init__(message)
        self.result = result


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# What of a line of a sensitive file may be seen: the name before a colon or an equals sign.
NAMED = re.compile(r"""(?P<name>\s*(?:- )?["']?[\w./@-]+["']?\s*[:=])\s*(?P<value>\S.*)""")


def masked(content: bytes) -> bytes:
    """The text with its values hidden: names stay, and four digits of a sum tell whether two values are equal."""
    text = as_text(content)
    if text is None:
        return b""

    def mask(line: str) -> str:
        named = NAMED.fullmatch(line)
        name, value = (named["name"] + " ", named["value"]) if named else ("", line)
        bare = not value.strip() or (not named and line.rstrip().endswith(":") and NAMED.fullmatch(line + " x"))
        return line if bare else f"{name}(hidden, {digest(value.encode())[:4]})"

    return "".join(mask(line) + "\n" for line in text.splitlines()).encode()


# ---- what is on the host ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FileState:
    """One path as it is now. `fingerprint` is what the ledger compares: a digest, `absent`, `link:<target>`, a kind."""

    fingerprint: str
    uid: int = -1
    gid: int = -1
    mode: int = 0
    content: bytes | None = None

    @property
    def exists(self) -> bool:
        return self.fingerprint != ABSENT

    @property
    def link(self) -> str | None:
        return self.fingerprint[5:] if self.fingerprint.startswith("link:") else None

    @property
    def replaceable(self) -> bool:
        """Only regular files and links are ours to replace or remove; a directory or a socket never is."""
        return self.content is not None or self.link is not None or not self.exists


def read_state(path: str) -> FileState:
    """Links are not followed: as root, through a directory of a service's user, that could write anywhere."""
    try:
        info = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return FileState(ABSENT)
    attributes = (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode))
    if stat.S_ISREG(info.st_mode):
        with open(path, "rb") as handle:
            content = handle.read()
        return FileState(digest(content), *attributes, content)
    if stat.S_ISLNK(info.st_mode):
        return FileState("link:" + os.readlink(path), *attributes)
    return FileState("directory" if stat.S_ISDIR(info.st_mode) else "special file", *attributes)


def user_id(name: str) -> int | None:
    if name.isdigit():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def group_id(name: str) -> int | None:
    if name.isdigit():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def same_attributes(state: FileState, owner: str, group: str, mode: str) -> bool:
    return (state.uid, state.gid, state.mode) == (user_id(owner), group_id(group), int(mode, 8))


# ---- differences -----------------------------------------------------------------------------------------------------


def as_text(content: bytes | None) -> str | None:
    """The content as text, None when it is binary or too large to be shown to a human."""
    if content is None or len(content) > DIFF_MAX_BYTES or b"\0" in content:
        return None
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return None


def unified_diff(before: str, after: str, before_name: str, after_name: str) -> str:
    lines = list(difflib.unified_diff(before.splitlines(), after.splitlines(), before_name, after_name, lineterm=""))
    if len(lines) > DIFF_MAX_LINES:
        lines[DIFF_MAX_LINES:] = [f"... {len(lines) - DIFF_MAX_LINES} more lines"]
    return "\n".join(lines)


# ---- the ledger ------------------------------------------------------------------------------------------------------


@dataclass
class Entry:
    """One file of ours. `pending` is set before a file is touched, so that a run killed just then is no hand edit."""

    sha256: str | None
    owner: str
    group: str
    mode: str
    sensitive: bool = False
    variable: str | None = None
    effects: list[str] = field(default_factory=list)
    pending: str | None = None

    def wrote(self, state: FileState) -> bool:
        return state.fingerprint in (self.sha256, self.pending)

    def drift_reason(self, state: FileState) -> str | None:
        """Why the file is not as we left it; a file of which no write was ever finished cannot have been edited."""
        if self.sha256 is None or self.wrote(state):
            return None
        if not state.exists:
            return "removed"
        if state.content is not None:
            return "edited"
        return f"replaced by a link to {state.link}" if state.link else f"replaced by a {state.fingerprint}"


class Ledger:
    VERSION = 1

    def __init__(self, state_dir: str, role: str) -> None:
        self.role = role
        self.path = os.path.join(state_dir, "managed", role + ".json")
        self.contents = os.path.join(state_dir, "managed", role + ".d")
        self.files: dict[str, Entry] = {}
        self.owed: list[str] = []
        self.exists = False
        self._saved = ""
        self._load()

    def _load(self) -> None:
        try:
            with open(self.path, encoding="utf-8") as handle:
                text = handle.read()
        except FileNotFoundError:
            return
        try:
            data = json.loads(text)
            if data["version"] != self.VERSION:
                raise ValueError(f"version {data['version']}, this release reads {self.VERSION}")
            self.files = {path: Entry(**entry) for path, entry in data["files"].items()}
            self.owed = list(data["owed"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ManagedError(
                f"The ledger {self.path} cannot be read ({error}). Move it away: "
                "the next run takes its files over anew, and keeps a copy of each that differs."
            ) from error
        self.exists = True
        self._saved = text

    def owe(self, effects: Iterable[str]) -> None:
        self.owed.extend(effect for effect in dict.fromkeys(effects) if effect not in self.owed)

    def settle(self, effects: Iterable[str]) -> list[str]:
        """Take effects off the list of what is owed; returns those that were on it."""
        done = set(effects)
        settled = [effect for effect in self.owed if effect in done]
        self.owed = [effect for effect in self.owed if effect not in done]
        return settled

    def dump(self) -> str:
        files = {path: asdict(entry) for path, entry in sorted(self.files.items())}
        return json.dumps({"version": self.VERSION, "files": files, "owed": self.owed}, indent=1) + "\n"

    def save(self) -> None:
        text = self.dump()
        if text == self._saved:
            return
        private_directory(os.path.dirname(self.path))
        write_atomically(self.path, text.encode())
        self._saved = text
        self.exists = True

    def _copy(self, fingerprint: str | None, sensitive: bool) -> str:
        """The name of the copy of what was written."""
        return (fingerprint or ABSENT) + (".masked" if sensitive else "")

    def remember(self, content: bytes, sensitive: bool) -> None:
        path = os.path.join(self.contents, self._copy(digest(content), sensitive))
        if not os.path.exists(path):
            private_directory(os.path.dirname(self.path))
            private_directory(self.contents)
            write_atomically(path, masked(content) if sensitive else content)

    def forget_unused(self) -> None:
        used = {
            self._copy(fingerprint, entry.sensitive)
            for entry in self.files.values()
            for fingerprint in (entry.sha256, entry.pending)
        }
        for name in os.listdir(self.contents) if os.path.isdir(self.contents) else ():
            if name not in used:
                os.unlink(os.path.join(self.contents, name))

    def written(self, entry: Entry, sensitive: bool = False) -> bytes | None:
        for fingerprint in (entry.pending, entry.sha256):
            path = os.path.join(self.contents, self._copy(fingerprint, sensitive))
            if os.path.exists(path):
                with open(path, "rb") as handle:
                    return handle.read()
        return None

    def drift(self, path: str, reason: str, state: FileState, sensitive: bool) -> dict[str, Any]:
        """One entry of a drift list, as managed_files and managed_drift return it."""
        entry = self.files[path]
        item = {"path": path, "role": self.role, "reason": reason, "variable": entry.variable, "sensitive": sensitive}
        return {**item, "diff": self._difference(path, entry, reason, state, sensitive)}

    def _difference(self, path: str, entry: Entry, reason: str, state: FileState, sensitive: bool) -> str | None:
        if reason == "mode":
            now = f"{owner_name(state.uid)}:{group_name(state.gid)} {state.mode:04o}"
            return f"{entry.owner}:{entry.group} {entry.mode} -> {now}"
        if state.content is None:
            return None
        if sensitive and self.written(entry, sensitive) is None:
            return "(hidden: the file is sensitive)"
        content = masked(state.content) if sensitive else state.content
        before, after = as_text(self.written(entry, sensitive)), as_text(content)
        if before is None or after is None:
            return "(binary, or too large to show)"
        return unified_diff(before, after, path + " (as written)", path + " (on the host)")


def owner_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def find_roles(state_dir: str) -> list[str]:
    directory = os.path.join(state_dir, "managed")
    names = os.listdir(directory) if os.path.isdir(directory) else []
    return sorted(name[:-5] for name in names if name.endswith(".json") and not name.startswith("."))


# ---- writing ---------------------------------------------------------------------------------------------------------


def private_directory(path: str) -> None:
    if not os.path.isdir(path):
        make_parents(path)
        os.mkdir(path, 0o700)


def make_parents(path: str) -> None:
    """Missing parents belong to root and are open to read, whatever the umask of this run is."""
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        make_parents(parent)
        os.mkdir(parent)
        os.chmod(parent, 0o755)


def write_atomically(path: str, content: bytes, uid: int = -1, gid: int = -1, mode: int = 0o600) -> None:
    """Replace path as a whole. Until owner and mode are set, nobody but root can open the new file."""
    directory, name = os.path.split(path)
    staged = os.path.join(directory, "." + name + STAGED_SUFFIX)
    # Left by a killed run, if it is there.
    if os.path.lexists(staged):
        os.unlink(staged)
    try:
        with os.fdopen(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as handle:
            handle.write(content)
            handle.flush()
            os.fchown(handle.fileno(), uid, gid)
            os.fchmod(handle.fileno(), mode)
            os.fsync(handle.fileno())
        try:
            os.rename(staged, path)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            # A mount point (/etc/hosts of a container) cannot be renamed over.
            write_in_place(path, content, uid, gid, mode)
    finally:
        if os.path.lexists(staged):
            os.unlink(staged)
    sync_directory(directory)


def write_in_place(path: str, content: bytes, uid: int, gid: int, mode: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_NOFOLLOW), "wb") as handle:
        # Written first and cut after, so that no reader ever meets an empty file.
        handle.write(content)
        handle.flush()
        handle.truncate(len(content))
        os.fchown(handle.fileno(), uid, gid)
        os.fchmod(handle.fileno(), mode)
        os.fsync(handle.fileno())


def sync_directory(path: str) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
