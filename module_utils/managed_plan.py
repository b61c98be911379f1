"""What managed_files does on a host: read the state, compute the difference, validate it, act.

`make_plan` is pure: wishes, ledger and state go in, steps come out. Check mode is the same plan, not carried out.
"""

from __future__ import annotations

import base64
import os
import re
import shlex
import shutil
import stat
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

# The two module utilities travel to the host together.
from ansible.module_utils.managed_ledger import (
    ABSENT,
    DIFF_MAX_BYTES,
    STATE_DIR,
    Entry,
    FileState,
    Ledger,
    ManagedError,
    as_text,
    digest,
    group_id,
    group_name,
    make_parents,
    owner_name,
    private_directory,
    read_state,
    same_attributes,
    sync_directory,
    user_id,
    write_atomically,
)

SYSTEMD_UNITS = "/etc/systemd/system/"
VALIDATOR_TIMEOUT = 120
# Exit statuses of shells, env(1) and the like for a command that cannot be run.
NOT_RUNNABLE = (126, 127)
UNTOUCHED = "Nothing was changed there."
WRITING = ("created", "changed", "removed")


@dataclass(frozen=True)
class Wish:
    """One file as the role wants it."""

    path: str
    content: bytes
    owner: str = "root"
    group: str = "root"
    mode: str = "0644"
    sensitive: bool = False
    validate: str | None = None
    effects: tuple[str, ...] = ()
    variable: str | None = None

    @property
    def fingerprint(self) -> str:
        return digest(self.content)


@dataclass(frozen=True)
class Step:
    """What becomes of one path: created, changed, unchanged, kept, removed, or forgotten (neither wanted nor there).

    `attributes` says that the content is right and owner, group or mode are not.
    """

    path: str
    action: str
    state: FileState
    wish: Wish | None = None
    attributes: bool = False
    keep_copy: bool = False
    drift: dict[str, Any] | None = None
    effects: tuple[str, ...] = ()
    sensitive: bool = False

    @property
    def writes(self) -> bool:
        return self.action in WRITING


@dataclass(frozen=True)
class Bundle:
    """All that the controller sent."""

    role: str
    host: str = "this host"
    state_dir: str = STATE_DIR
    local_edits: str = "stop"
    files: tuple[Wish, ...] = ()
    directories: tuple[dict[str, str], ...] = ()
    absent: dict[str, tuple[str, ...]] = field(default_factory=dict)
    validate: tuple[dict[str, str], ...] = ()
    settled: tuple[str, ...] | None = None

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Bundle:
        files = tuple(
            Wish(**{**item, "content": base64.b64decode(item["content"]), "effects": tuple(item["effects"])})
            for item in data.get("files") or ()
        )
        return cls(
            role=data["role"],
            host=data["host"],
            state_dir=data["state_dir"],
            local_edits=data["local_edits"],
            files=files,
            directories=tuple(data.get("directories") or ()),
            absent={item["path"]: tuple(item["effects"]) for item in data.get("absent") or ()},
            validate=tuple(data.get("validate") or ()),
            settled=None if data.get("settled") is None else tuple(data["settled"]),
        )


# ---- the plan --------------------------------------------------------------------------------------------------------


def effects_of(path: str, effects: Iterable[str]) -> tuple[str, ...]:
    own = ("daemon-reload",) if path.startswith(SYSTEMD_UNITS) else ()
    return tuple(dict.fromkeys((*own, *effects)))


def paths_of(bundle: Bundle, ledger: Ledger) -> list[str]:
    return list(dict.fromkeys([*(wish.path for wish in bundle.files), *ledger.files, *bundle.absent]))


def make_plan(bundle: Bundle, ledger: Ledger, states: Mapping[str, FileState]) -> list[Step]:
    wishes = {wish.path: wish for wish in bundle.files}
    steps = []
    for path in paths_of(bundle, ledger):
        state, wish, entry = states[path], wishes.get(path), ledger.files.get(path)
        # Nobody knows what a foreign file holds that we only remove.
        sensitive = any(known.sensitive for known in (wish, entry) if known) or not (wish or entry)
        reason = drift_reason(wish, entry, state)
        drift = ledger.drift(path, reason, state, sensitive) if reason else None
        if drift and wish and wish.variable:
            drift["variable"] = wish.variable
        if drift and bundle.local_edits != "overwrite":
            step = Step(path, "kept", state, wish)
        elif wish:
            step = plan_file(wish, entry, state)
        else:
            step = plan_removal(path, entry, state, bundle.absent.get(path))
        if step.writes and not state.replaceable:
            raise ManagedError(
                f"{path} on {bundle.host} is a {state.fingerprint}, not a file: move it away. {UNTOUCHED}"
            )
        steps.append(replace(step, drift=drift, sensitive=sensitive))
    return steps


def drift_reason(wish: Wish | None, entry: Entry | None, state: FileState) -> str | None:
    """A file that is as it is wanted, or gone as it is wanted, was not changed against anybody's will."""
    as_wanted = state.fingerprint == wish.fingerprint if wish else not state.exists
    return entry.drift_reason(state) if entry and not as_wanted else None


def plan_file(wish: Wish, entry: Entry | None, state: FileState) -> Step:
    if state.fingerprint == wish.fingerprint:
        right = same_attributes(state, wish.owner, wish.group, wish.mode)
        return Step(wish.path, "unchanged", state, wish, attributes=not right)
    return Step(
        wish.path,
        "changed" if state.exists else "created",
        state,
        wish,
        # What is not known to be ours may be somebody's work.
        keep_copy=state.exists and not (entry and entry.wrote(state)),
        effects=effects_of(wish.path, wish.effects),
    )


def plan_removal(path: str, entry: Entry | None, state: FileState, absent: tuple[str, ...] | None) -> Step:
    """A path of the ledger that the role no longer wants, or one that it wants to be absent."""
    ours = entry is not None and entry.wrote(state)
    edited = entry is not None and entry.sha256 is not None and not ours
    if not state.exists or not (ours or edited or absent is not None):
        return Step(path, "forgotten", state)
    effects = effects_of(path, (*(entry.effects if entry else ()), *(absent or ())))
    return Step(path, "removed", state, keep_copy=not ours, effects=effects)


def plan_directories(bundle: Bundle) -> dict[str, str]:
    """path -> created, changed (owner, group or mode) or unchanged."""
    plan = {}
    for item in bundle.directories:
        path = item["path"]
        state = read_state(path)
        if state.link is not None:
            # A link of root's is an administrator's choice of disk; anybody else's could lead the new owner anywhere.
            if state.uid not in (0, os.geteuid()) or not os.path.isdir(path):
                raise ManagedError(
                    f"{path} on {bundle.host} is a link to {state.link}; "
                    f"only root's link to a directory is followed. {UNTOUCHED}"
                )
            info = os.stat(path)
            state = FileState("directory", info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode))
        if state.exists and state.fingerprint != "directory":
            raise ManagedError(
                f"{path} on {bundle.host} is to be a directory, and something else is there. {UNTOUCHED}"
            )
        right = same_attributes(state, item["owner"], item["group"], item["mode"])
        plan[path] = "created" if not state.exists else "unchanged" if right else "changed"
    return plan


def missing_accounts(bundle: Bundle) -> list[str]:
    items = [
        *((wish.path, wish.owner, wish.group) for wish in bundle.files),
        *((d["path"], d["owner"], d["group"]) for d in bundle.directories),
    ]
    users = {f"user {owner} (for {path})": None for path, owner, _ in items if user_id(owner) is None}
    groups = {f"group {group} (for {path})": None for path, _, group in items if group_id(group) is None}
    return [*users, *groups]


def drift_message(bundle: Bundle, drifts: Iterable[Mapping[str, Any]]) -> str:
    """One line: what, where, and the ways out."""
    drifts = list(drifts)
    files = ", ".join(f"{drift['path']} ({drift['reason']})" for drift in drifts)
    variables = list(dict.fromkeys(drift["variable"] for drift in drifts if drift["variable"]))
    target = (
        f"{' or '.join(variables)} in the inventory's 90-local.yml" if variables else "the inventory's 90-local.yml"
    )
    return (
        f"Changed by hand on {bundle.host} since the last run: {files}. {UNTOUCHED} Put the change into {target}, "
        "or run again with -e local_edits=keep (leave it) "
        f"or -e local_edits=overwrite (replace it; a copy goes to {bundle.state_dir}/replaced)."
    )


def drift_warning(bundle: Bundle, step: Step, replaced: Mapping[str, str]) -> str:
    assert step.drift
    fact = f"{step.path} on {bundle.host} was {step.drift['reason']} by hand"
    if step.action == "kept":
        hint = f"; the place for it is {step.drift['variable']} in 90-local.yml" if step.drift["variable"] else ""
        return f"{fact} and is kept{hint}."
    verb = "removed" if step.action == "removed" else "overwritten"
    return f"{fact} and is {verb}{f'; the copy is {replaced[step.path]}' if step.path in replaced else ''}."


def diff_entries(steps: Iterable[Step]) -> list[dict[str, Any]]:
    """What --diff prints: a sensitive file's name alone, a large or binary file's size."""
    entries: list[dict[str, Any]] = []
    for step in steps:
        entry = {"before_header": step.path, "after_header": step.path}
        wish, state = step.wish, step.state
        if step.writes:
            after = wish.content if wish else b""
            if step.sensitive:
                entries.append({"prepared": f"--- {step.path}: {step.action}, content hidden\n"})
            elif as_text(state.content or b"") is None or as_text(after) is None:
                entries.append(
                    {"prepared": f"--- {step.path}: {step.action}, binary or larger than {DIFF_MAX_BYTES} bytes\n"}
                )
            else:
                before = f"link to {state.link}\n" if state.link else as_text(state.content or b"")
                entries.append({**entry, "before": before, "after": as_text(after)})
        if wish and step.attributes:
            entries.append(
                {
                    **entry,
                    "before": {
                        "owner": owner_name(state.uid),
                        "group": group_name(state.gid),
                        "mode": f"{state.mode:04o}",
                    },
                    "after": {"owner": wish.owner, "group": wish.group, "mode": wish.mode},
                }
            )
    return entries


# ---- validation ------------------------------------------------------------------------------------------------------


def redact(text: str, secrets: Iterable[bytes]) -> str:
    """Validators quote what they do not like: mask every word of a sensitive file."""
    words: set[str] = set()
    for secret in secrets:
        for word in secret.decode("utf-8", "replace").split():
            words.update((word, *re.split(r"[^\w+/-]+", word)))
    for word in sorted((word for word in words if len(word) > 3), key=len, reverse=True):
        text = text.replace(word, "****")
    return text


@dataclass
class Check:
    """One run of a validator."""

    subject: str
    command: str
    staged: str
    secrets: list[bytes] = field(default_factory=list)

    def run(self) -> tuple[bool, str]:
        """(could it be run, what it found: empty when all is well)"""
        argv = [word.replace("%s", self.staged) for word in shlex.split(self.command)]
        environment = {
            **os.environ,
            "LC_ALL": "C.UTF-8",
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        }
        if "/" not in argv[0] and shutil.which(argv[0], path=environment["PATH"]) is None:
            return False, f"{argv[0]} is not installed"
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment,
                timeout=VALIDATOR_TIMEOUT,
                check=False,
            )
        except (FileNotFoundError, PermissionError) as error:
            return False, f"{argv[0]}: {error.strerror}"
        except subprocess.TimeoutExpired:
            return True, f"no answer within {VALIDATOR_TIMEOUT} s"
        if done.returncode == 0:
            return True, ""
        output = done.stdout.decode("utf-8", "replace").strip()[-4000:].replace(self.staged, self.subject)
        return done.returncode not in NOT_RUNNABLE, redact(
            output, self.secrets
        ) or f"exit status {done.returncode}, no output"


def stage_checks(bundle: Bundle, steps: list[Step], staging: str) -> list[Check]:
    """Lay out what is about to be, for every validator whose subject changes."""
    checks = []
    writing = [step for step in steps if step.writes]
    for number, step in enumerate(writing):
        if step.wish and step.wish.validate:
            # The name is kept: some validators go by it.
            staged = os.path.join(staging, f"file{number}", os.path.basename(step.path))
            os.mkdir(os.path.dirname(staged), 0o700)
            put(staged, step.wish.content)
            checks.append(Check(step.path, step.wish.validate, staged, [step.wish.content] if step.sensitive else []))
    for number, item in enumerate(bundle.validate):
        tree = item["tree"]
        inside = [step for step in writing if is_below(step.path, tree)]
        if inside:
            staged = os.path.join(staging, f"tree{number}", os.path.basename(tree))
            os.makedirs(staged, 0o700)
            copy_tree(tree, staged, tree, staged)
            for step in inside:
                lay_over(os.path.join(staged, os.path.relpath(step.path, tree)), step)
            known = [step for step in steps if step.sensitive and is_below(step.path, tree)]
            secrets = [step.state.content or b"" for step in known]
            secrets += [step.wish.content for step in known if step.wish]
            checks.append(Check(tree, item["command"], staged, secrets))
    return checks


def is_below(path: str, tree: str) -> bool:
    return path.startswith(tree.rstrip("/") + "/")


def copy_tree(source: str, target: str, root: str, staged_root: str) -> None:
    """Copy regular files and links; a link that names the tree itself by its absolute path is led into the copy."""
    if not os.path.isdir(source):
        return
    for item in os.scandir(source):
        copy = os.path.join(target, item.name)
        if item.is_symlink():
            link = os.readlink(item.path)
            os.symlink(staged_root + link[len(root) :] if is_below(link, root) else link, copy)
        elif item.is_dir():
            os.mkdir(copy, 0o700)
            copy_tree(item.path, copy, root, staged_root)
        elif item.is_file():
            shutil.copy2(item.path, copy)


def lay_over(staged: str, step: Step) -> None:
    if os.path.lexists(staged):
        os.unlink(staged)
    if step.wish:
        os.makedirs(os.path.dirname(staged), 0o700, exist_ok=True)
        put(staged, step.wish.content)


def put(path: str, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as handle:
        handle.write(content)


def validate(bundle: Bundle, steps: list[Step], staging: str, check_mode: bool, first_time: bool) -> list[str]:
    """Raise for what a validator refuses; returns warnings.

    A dry run of the first time has neither the packages, nor the users, nor the certificates that a configuration
    refers to: what a validator says then is no proof of a fault.
    """
    warnings = []
    for check in stage_checks(bundle, steps, staging):
        able, complaint = check.run()
        if not complaint or (check_mode and not able):
            continue
        message = f"{check.subject} as it would be on {bundle.host} is refused by `{check.command}`: {complaint}"
        if not (check_mode and first_time):
            raise ManagedError(f"{message}\n{UNTOUCHED}")
        warnings.append(message)
    return warnings


# ---- acting ----------------------------------------------------------------------------------------------------------


def apply_directories(bundle: Bundle, plan: Mapping[str, str]) -> None:
    for item in sorted(bundle.directories, key=lambda entry: entry["path"]):
        path = item["path"]
        if plan[path] == "created":
            make_parents(path)
            os.mkdir(path, 0o700)
        if plan[path] != "unchanged":
            os.chown(path, user_id(item["owner"]), group_id(item["group"]))
            os.chmod(path, int(item["mode"], 8))


def keep_copy(bundle: Bundle, step: Step) -> str:
    root = os.path.join(bundle.state_dir, "replaced")
    private_directory(root)
    stem = f"{root}{step.path}.{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    copy, number = stem, 1
    while os.path.lexists(copy):
        copy, number = f"{stem}-{number}", number + 1
    make_parents(copy)
    if step.state.link is not None:
        os.symlink(step.state.link, copy)
    else:
        write_atomically(copy, step.state.content or b"")
    return copy


def announce(ledger: Ledger, steps: Iterable[Step]) -> None:
    """Write ahead: what is about to be touched and what will be owed then. After this a run may die at any point."""
    for step in steps:
        if not step.writes:
            continue
        ledger.owe(step.effects)
        wish = step.wish
        if wish:
            ledger.files.setdefault(step.path, Entry(None, wish.owner, wish.group, wish.mode, wish.sensitive))
            ledger.remember(wish.content, wish.sensitive)
        entry = ledger.files.get(step.path)
        if entry:
            # An earlier run may have died here as well: what is there now is known to be ours, whichever run wrote it.
            if entry.wrote(step.state) or not step.state.exists:
                entry.sha256 = step.state.fingerprint if step.state.exists else None
            entry.pending = wish.fingerprint if wish else ABSENT
    ledger.save()


def carry_out(step: Step) -> None:
    wish = step.wish
    if wish is None:
        if step.writes:
            os.unlink(step.path)
            sync_directory(os.path.dirname(step.path))
        return
    uid, gid, mode = user_id(wish.owner), group_id(wish.group), int(wish.mode, 8)
    assert uid is not None  # missing accounts are refused before
    assert gid is not None
    if step.writes:
        make_parents(step.path)
        write_atomically(step.path, wish.content, uid, gid, mode)
    elif step.attributes:
        os.chown(step.path, uid, gid, follow_symlinks=False)
        os.chmod(step.path, mode)


def conclude(ledger: Ledger, steps: Iterable[Step]) -> None:
    for step in steps:
        wish = step.wish
        if step.action == "kept":
            continue
        if wish:
            ledger.files[step.path] = Entry(
                wish.fingerprint,
                wish.owner,
                wish.group,
                wish.mode,
                wish.sensitive,
                wish.variable,
                list(effects_of(step.path, wish.effects)),
            )
            ledger.remember(wish.content, wish.sensitive)
        else:
            ledger.files.pop(step.path, None)
    ledger.save()
    ledger.forget_unused()


# ---- the whole -------------------------------------------------------------------------------------------------------


def run(
    bundle: Bundle,
    staging: str,
    check_mode: bool = False,
    diff: bool = False,
    carry: Callable[[Step], None] = carry_out,
) -> dict[str, Any]:
    """Bring the host to the bundle. `staging` is an empty directory of ours alone; `carry` writes one file."""
    ledger = Ledger(bundle.state_dir, bundle.role)
    if bundle.settled is not None:
        settled = ledger.settle(bundle.settled)
        if settled and not check_mode:
            ledger.save()
        return {"changed": bool(settled), "settled": settled, "effects": ledger.owed, "files": {}, "drift": []}

    steps = make_plan(bundle, ledger, {path: read_state(path) for path in paths_of(bundle, ledger)})
    directories = plan_directories(bundle)
    drifts = [step.drift for step in steps if step.drift]
    if drifts and bundle.local_edits == "stop":
        raise ManagedError(drift_message(bundle, drifts), drift=drifts)
    missing = missing_accounts(bundle)
    if missing and not check_mode:
        raise ManagedError(f"Missing on {bundle.host}: {', '.join(missing)}. {UNTOUCHED}")

    warnings = validate(bundle, steps, staging, check_mode, first_time=not ledger.exists)
    replaced = {}
    if check_mode:
        for step in steps:
            ledger.owe(step.effects)
    else:
        announce(ledger, steps)
        apply_directories(bundle, directories)
        for step in steps:
            if step.keep_copy:
                replaced[step.path] = keep_copy(bundle, step)
            carry(step)
        conclude(ledger, steps)

    warnings += [drift_warning(bundle, step, replaced) for step in steps if step.drift]
    files = {step.path: "changed" if step.attributes else step.action for step in steps if step.action != "forgotten"}
    result: dict[str, Any] = {
        "changed": bool(ledger.owed) or any(action in WRITING for action in (*files.values(), *directories.values())),
        "effects": ledger.owed,
        "files": files,
        "directories": directories,
        "drift": drifts,
        "replaced": replaced,
        "warnings": warnings,
    }
    if diff:
        result["diff"] = diff_entries(steps)
    return result
