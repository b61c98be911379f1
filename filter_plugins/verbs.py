"""Filters of the verbs in playbooks/: what an operator typed, what may be shown of it, and who is active."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible import context
from ansible.errors import AnsibleFilterError

SECRET_NAME = re.compile(r"password|passwd|key|secret|token", re.IGNORECASE)
MASK = "***"
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
LINK = re.compile(r"https?://[^\s\"'<>]+")
TERMINAL: dict[str, list[str]] = {
    "shell": ["-c", "--command"],
    "dbshell": ["-c", "--command"],
    "createsuperuser": ["--noinput", "--no-input"],
    "changepassword": [],
}
"""Django's own commands that ask at a terminal, and the options with which they do not."""

EMAIL = re.compile(r"[^@\s,;:<>()\[\]\\\"'`-][^@\s,;:<>()\[\]\\\"'`]*@[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")
SUBDOMAIN = re.compile(r"[a-z0-9][a-z0-9-]+[a-z0-9]")
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def typed_command(value: str, name: str = "command") -> str:
    """Return a command as it was typed.

    `-e command="list_users -r x"` reaches Ansible without the quotes, which then keeps the first word and loses the
    others. What follows `command=` in an -e that holds no quote there is taken as it stands; all else is Ansible's.
    """
    for option in reversed(context.CLIARGS.get("extra_vars") or ()):
        text = str(option).lstrip()
        if text.startswith(f"{name}="):
            text = text.removeprefix(f"{name}=").strip()
            return str(value).strip() if text[:1] in ("'", '"') else text
    return str(value or "").strip()


def command_words(command: str) -> list[str]:
    """Return the words of a command, as a shell would split them; an own `manage.py` before them is left out."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise AnsibleFilterError(f"the command cannot be read: {error}") from None
    return words[1:] if words and words[0].rpartition("/")[2] == "manage.py" else words


def command_problem(command: str) -> str:
    """Return what is wrong with a command before anybody knows which host would run it, or nothing."""
    try:
        words = command_words(command)
    except AnsibleFilterError as error:
        return str(error)
    if not words:
        return "say what to run: make manage COMMAND='list_realms', or -e command='list_realms'"
    if words[0].startswith("-"):
        return f"the command begins with the option {words[0]}; its name comes first, as in `list_realms --all`"
    return ""


def wants_terminal(words: Sequence[str], interactive: Mapping[str, Iterable[str]]) -> bool:
    """Tell whether a command would ask at a terminal.

    interactive: commands of the application that do, with the options that make each of them run by itself.
    """
    known = {**TERMINAL, **interactive}
    if words[0] not in known or "--help" in words[1:] or "-h" in words[1:]:
        return False
    for option in known[words[0]]:
        for word in words[1:]:
            if word == option or word.startswith(f"{option}="):
                return False
            # A short option may have its value right behind it.
            if re.fullmatch(r"-\w", option) and word.startswith(option):
                return False
    return True


def masked(words: Sequence[str]) -> str:
    """Return a command as one line for a log: values of options that sound like a secret are left out."""
    shown, hide_next = [], False
    for word in words:
        name, equals, _value = word.partition("=")
        if hide_next and not word.startswith("-"):
            shown.append(MASK)
            hide_next = False
            continue
        secret = bool(re.fullmatch(r"-{0,2}[\w-]+", name)) and bool(SECRET_NAME.search(name))
        hide_next = secret and word.startswith("-") and not equals
        shown.append(f"{name}={MASK}" if secret and equals else word)
    line = " ".join(word if word == MASK or word.endswith(f"={MASK}") else shlex.quote(word) for word in shown)
    return CONTROL.sub(lambda found: found.group().encode("unicode_escape").decode(), line)


def readable(text: str) -> str:
    """Return a program's output so that it is printed line by line: no colours, no tabs, no blanks at the end."""
    lines = [ESCAPE.sub("", line).expandtabs().rstrip() for line in str(text).splitlines()]
    return "\n".join(re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "?", line) for line in lines).strip("\n")


def last_words(result: Mapping[str, Any]) -> str:
    """Return the last line of what a command that failed said, or its status."""
    said = readable(result.get("stderr") or result.get("msg") or "")
    return said.splitlines()[-1].strip() if said else f"it ended with status {result.get('rc', '?')}"


def seconds(delta: str) -> float:
    """Return the time that a command took, as the module `command` writes it, in seconds."""
    found = re.fullmatch(r"(?:(\d+) days?, )?(\d+):(\d+):(\d+(?:\.\d+)?)", str(delta))
    if not found:
        raise AnsibleFilterError(f"{delta!r} is no time that a command took")
    days, hours, minutes, rest = found.groups()
    return round(int(days or 0) * 86400 + int(hours) * 3600 + int(minutes) * 60 + float(rest), 1)


def first_link(text: str) -> str:
    """Return the first link in a text, or nothing."""
    found = LINK.search(ESCAPE.sub("", str(text)))
    return found.group() if found else ""


def active_hosts(
    hosts: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]], name: str = "active_lease"
) -> list[str]:
    """Return the hosts whose answer in the variable `name` says that they hold the lease."""
    answers = {host: hostvars[host].get(name) or {} for host in hosts}
    return [host for host, answer in answers.items() if (answer.get("stat") or {}).get("exists")]


def active_problem(hosts: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]], name: str = "active_lease") -> str:
    """Return why there is no one active host, or nothing."""
    hosts = list(hosts)
    active = active_hosts(hosts, hostvars, name)
    if len(active) == 1:
        return ""
    silent = [host for host in hosts if "stat" not in (hostvars[host].get(name) or {})]
    heard = f" (no answer from {', '.join(silent)})" if silent else ""
    if active:
        return f"{' and '.join(active)} both say that they are active: see what `make health` says, and try again"
    return f"no app host is active{heard}: see what `make health` says"


def _line(value: Any, what: str, longest: int) -> str:
    """Return what is wrong with a name, or nothing."""
    text = str(value or "").strip()
    if not text:
        return f"{what} is empty"
    if CONTROL.search(text) or len(text) > longest:
        return f"{what} has to be one line of at most {longest} characters"
    # It becomes a word of a command, which would take it for an option.
    return f"{what} must not begin with a dash" if text.startswith("-") else ""


def organization_problem(wanted: Mapping[str, Any]) -> str:
    """Return all that is wrong with the variables of playbooks/organization.yml as one line, or nothing."""
    problems = []
    subdomain = str(wanted.get("subdomain") or "")
    if subdomain and (not SUBDOMAIN.fullmatch(subdomain) or len(subdomain) > 40):
        problems.append(
            f"organization_subdomain cannot be {subdomain!r}: 3 to 40 small letters, digits and "
            "dashes, none at an end; empty for the root domain"
        )
    if not wanted.get("link"):
        problems.append(_line(wanted.get("name"), "organization_name", 40))
        problems.append(_line(wanted.get("owner_name"), "organization_owner_name", 100))
        email = str(wanted.get("owner_email") or "").strip()
        if not email:
            problems.append("organization_owner_email is empty")
        elif not EMAIL.fullmatch(email):
            problems.append(f"organization_owner_email cannot be {email!r}")
        if CONTROL.search(str(wanted.get("password") or "")):
            problems.append("organization_owner_password has to be one line")
    return "; ".join(problem for problem in problems if problem)


def s3_problem(wanted: Mapping[str, Any], final: bool) -> str:
    """Return all that is wrong with the variables of playbooks/uploads_to_s3.yml as one line, or nothing."""
    problems = []
    for name in ("uploads_s3_bucket", "uploads_s3_avatar_bucket"):
        value = str(wanted.get(name) or "")
        if not value:
            problems.append(f"{name} is empty")
        elif not BUCKET.fullmatch(value):
            problems.append(f"{name} cannot be {value!r}: 3 to 63 small letters, digits, dots and dashes")
    if wanted.get("uploads_s3_bucket") and wanted.get("uploads_s3_bucket") == wanted.get("uploads_s3_avatar_bucket"):
        problems.append("uploads and avatars need a bucket each: everybody may read that of the avatars")
    if bool(wanted.get("uploads_s3_access_key")) != bool(wanted.get("uploads_s3_secret_key")):
        problems.append("uploads_s3_access_key and uploads_s3_secret_key go together")
    endpoint = str(wanted.get("uploads_s3_endpoint") or "")
    if endpoint and not re.fullmatch(r"https?://[^\s/]+/?", endpoint):
        problems.append(f"uploads_s3_endpoint cannot be {endpoint!r}: write it as https://s3.example.com")
    processes = str(wanted.get("processes") or "")
    if not re.fullmatch(r"[1-9]\d?", processes):
        problems.append(f"processes cannot be {processes!r}: a number from 1 to 99")
    backend = wanted.get("uploads_backend")
    if final and backend != "s3":
        problems.append(f"uploads_backend is {backend}: before final=true set it to s3 and run site.yml")
    if not final and backend != "local":
        problems.append(f"uploads_backend is {backend}: what came in before that switch is copied with final=true")
    return "; ".join(problems)


def s3_table(answer: Mapping[str, Any], title: str, column: str) -> list[str]:
    """Return what playbooks/files/s3_uploads.py counted as the lines of a table."""
    lines = [f"{'KIND':<12} {'FILES':>9} {title:>9}"]
    return lines + [f"{kind:<12} {answer['found'][kind]:>9} {answer[column][kind]:>9}" for kind in answer["found"]]


def _agent(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a host's lease agent said of itself, or nothing."""
    try:
        said = json.loads(result.get("stdout") or "{}")
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def able_spares(results: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the app hosts that could take over. results: of `app_lease.py status --json`, one for each host."""
    return [result["item"] for result in results if _agent(result).get("healthy")]


def spare_states(results: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return in words why app hosts could not take over; results as for `able_spares`."""
    states = []
    for result in results:
        said = _agent(result)
        if result.get("unreachable") or not said:
            why = "does not answer"
        else:
            why = "healthy" if said.get("healthy") else "unhealthy: " + "; ".join(said.get("problems") or ["?"])
        states.append(f"{result['item']}: {why}")
    return states


def edited_files(hosts: Iterable[str], hostvars: Mapping[str, Any], name: str) -> list[str]:
    """Return the files that were edited by hand, as `host: path`.

    name: of the variable that holds the answer of `managed_drift`.
    """
    found = {host: hostvars[host].get(name, {}).get("drift", []) for host in hosts}
    return [f"{host}: {file['path']}" for host, files in found.items() for file in files]


class FilterModule:
    """Filters of the verbs."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "able_spares": able_spares,
            "edited_files": edited_files,
            "spare_states": spare_states,
            "typed_command": typed_command,
            "command_words": command_words,
            "command_problem": command_problem,
            "wants_terminal": wants_terminal,
            "masked": masked,
            "readable": readable,
            "last_words": last_words,
            "seconds": seconds,
            "first_link": first_link,
            "active_hosts": active_hosts,
            "active_problem": active_problem,
            "organization_problem": organization_problem,
            "s3_problem": s3_problem,
            "s3_table": s3_table,
        }
