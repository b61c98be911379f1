"""Settings as Python and ini text."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
EXPRESSION = "python_expression"


def plain(value: Any) -> Any:
    """Return a value as plain Python: Ansible's own strings and numbers carry tags, which would be printed too."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(plain(item) for item in value)
    if isinstance(value, tuple):
        return tuple(plain(item) for item in value)
    if isinstance(value, Iterable):
        return [plain(item) for item in value]
    raise AnsibleFilterError(f"a value of the type {type(value).__name__} has no form in a settings file: {value!r}")


class _Code(str):
    """A piece of Python that is written as it is."""

    def __repr__(self) -> str:
        return str(self)


def _code(value: Any, name: str) -> Any:
    """Return a plain value in which `{python_expression: TEXT}` stands for that expression."""
    if isinstance(value, dict):
        if set(value) == {EXPRESSION}:
            text = str(value[EXPRESSION]).strip()
            try:
                ast.parse(text, mode="eval")
            except (SyntaxError, ValueError) as error:
                raise AnsibleFilterError(f"{name}: {text!r} is no Python expression: {error}") from None
            return _Code(f"({text})")
        return {key: _code(item, name) for key, item in value.items()}
    if isinstance(value, list):
        return [_code(item, name) for item in value]
    if isinstance(value, tuple):
        return tuple(_code(item, name) for item in value)
    if isinstance(value, float) and not math.isfinite(value):
        raise AnsibleFilterError("a number that is infinite or none has no form in a settings file")
    return value


def python_literal(value: Any, name: str = "zulip_settings") -> str:
    """Return a value as Python, its type kept."""
    return repr(_code(plain(value), name))


def python_imports(lines: Iterable[str]) -> str:
    """Return import statements, one a line; nothing else is let through."""
    result = []
    for line in lines:
        text = str(line).strip()
        try:
            statements = ast.parse(text).body
        except (SyntaxError, ValueError):
            statements = []
        if not statements or not all(isinstance(part, ast.Import | ast.ImportFrom) for part in statements):
            raise AnsibleFilterError(f"zulip_settings_imports: {text!r} is no import statement")
        result.append(text + "\n")
    return "".join(result)


def python_assignments(settings: Mapping[str, Any], tuples: Iterable[str] = ()) -> str:
    """Return one Python assignment a line, sorted by name. Lists of the settings in `tuples` are written as tuples."""
    tuples = set(tuples)
    for name in settings:
        if not NAME.fullmatch(name):
            raise AnsibleFilterError(f"zulip_settings: {name!r} is not a name that a settings file can assign")
    values = {name: plain(value) for name, value in settings.items()}
    values |= {name: tuple(values[name]) for name in tuples & set(values) if isinstance(values[name], list)}
    return "".join(f"{name} = {python_literal(values[name], name)}\n" for name in sorted(values))


def ini_sections(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """Return ini text, sorted. A value is one line; booleans are written as Zulip's reader wants them."""
    parts = []
    for section in sorted(sections):
        lines = [f"[{section}]"]
        for name in sorted(sections[section]):
            value = sections[section][name]
            text = ("true" if value else "false") if isinstance(value, bool) else "" if value is None else str(value)
            if "\n" in text or "\r" in text or "=" in name or "\n" in name:
                raise AnsibleFilterError(f"[{section}] {name}: an ini value must be one line")
            lines.append(f"{name} = {text}".rstrip() if not text else f"{name} = {text}")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)
