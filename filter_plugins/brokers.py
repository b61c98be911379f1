"""Filters that write the configuration of the brokers, the caches and the database proxies."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

_PLAIN_WORD = re.compile(r"[A-Za-z0-9_.,:/*@%+=-]+")


def _one_line(value: Any) -> str:
    """Return a value as text; a line break would let it write another setting."""
    text = str(value)
    if any(character in text for character in "\r\n\0"):
        raise AnsibleFilterError("a setting's value must be a single line")
    return text


def _quoted(text: str) -> str:
    """Return the text in double quotes, as Redis' configuration reads them."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def rabbitmq_password_hash(password: str, salt: str) -> str:
    """Return the hash that RabbitMQ's definitions take (salted SHA-256, base64).

    The four bytes of salt are derived from `salt`, so that the same input gives the same file on every run. A salt is
    no secret: any text that differs from user to user and from host to host will do.
    """
    if not password:
        raise AnsibleFilterError("RabbitMQ's password is empty")
    salt_bytes = hashlib.sha256(salt.encode()).digest()[:4]
    return base64.b64encode(salt_bytes + hashlib.sha256(salt_bytes + password.encode()).digest()).decode()


def redis_directives(settings: Mapping[str, Any]) -> list[str]:
    """Return the lines of redis.conf for a dictionary of settings.

    Booleans become yes and no. A list repeats the directive, and an inner list gives it several arguments. A text is
    always one argument, blanks or not.
    """
    lines = []
    for name, value in settings.items():
        for item in value if isinstance(value, list) else [value]:
            arguments = item if isinstance(item, list) else [item]
            words = []
            for argument in arguments:
                text = ("yes" if argument else "no") if isinstance(argument, bool) else _one_line(argument)
                words.append(text if _PLAIN_WORD.fullmatch(text) else _quoted(text))
            lines.append(" ".join([name, *words]))
    return lines


def pgbouncer_lines(settings: Mapping[str, Any], only: Iterable[str] = (), without: Iterable[str] = ()) -> list[str]:
    """Return `name = value` lines for pgbouncer.ini; booleans become 1 and 0.

    settings: by name; one set to null is left out, which is how an operator returns a computed one to PgBouncer's own
      default.
    only, without: names to restrict the result to, or to leave out.
    """
    chosen, dropped = set(only), set(without)
    lines = []
    for name, value in settings.items():
        if value is None or name in dropped or (chosen and name not in chosen):
            continue
        lines.append(f"{name} = {int(value) if isinstance(value, bool) else _one_line(value)}".rstrip())
    return lines


def pgbouncer_userlist(users: Mapping[str, str]) -> list[str]:
    """Return the lines of PgBouncer's userlist; a quote inside quotes is written twice."""
    return ['"{}" "{}"'.format(*(_one_line(text).replace('"', '""') for text in pair)) for pair in users.items()]


class FilterModule:
    """Filters that write the configuration of the brokers, the caches and the database proxies."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "rabbitmq_password_hash": rabbitmq_password_hash,
            "redis_directives": redis_directives,
            "pgbouncer_lines": pgbouncer_lines,
            "pgbouncer_userlist": pgbouncer_userlist,
        }
