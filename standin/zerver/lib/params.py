"""Reads a request's parameters, and remembers which of them were understood."""

import json
from collections.abc import Mapping
from typing import Any

from zerver.lib.exceptions import invalid_parameter, missing_parameter

REQUIRED: Any = object()


class Params:
    """Form fields as the API encodes them: strings as they are, everything else as JSON."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values
        self._known: set[str] = set()

    def text(self, name: str, default: Any = REQUIRED, *, aliases: tuple[str, ...] = ()) -> Any:
        """A string. `aliases` are older names of the same parameter."""
        self._known.update((name, *aliases))
        for candidate in (name, *aliases):
            if candidate in self._values:
                return self._values[candidate]
        if default is REQUIRED:
            raise missing_parameter(name)
        return default

    def json(self, name: str, kind: type, default: Any = REQUIRED, *, aliases: tuple[str, ...] = ()) -> Any:
        """A JSON value of the given type."""
        raw = self.text(name, default, aliases=aliases)
        if raw is default:
            return default
        try:
            value = json.loads(raw)
        except ValueError:
            raise invalid_parameter(name, "is not valid JSON") from None
        # bool is an int to Python, not to the API.
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            names = {int: "an integer", list: "a list", bool: "a boolean", dict: "a dict"}
            raise invalid_parameter(name, f"is not {names[kind]}")
        return value

    def integer(self, name: str, default: Any = REQUIRED, *, minimum: int | None = None) -> Any:
        """A whole number."""
        value = self.json(name, int, default)
        if value is not None and minimum is not None and value < minimum:
            raise invalid_parameter(name, "is too small")
        return value

    def boolean(self, name: str, default: Any = REQUIRED) -> Any:
        """`true` or `false`."""
        return self.json(name, bool, default)

    def ids(self, name: str, default: Any = REQUIRED) -> Any:
        """A list of whole numbers."""
        value = self.json(name, list, default)
        if value and not all(type(item) is int for item in value):
            raise invalid_parameter(name, "contains something that is not an integer")
        return value

    def accept(self, *names: str) -> None:
        """Parameters that are right to send and make no difference here."""
        self._known.update(names)

    @property
    def unsupported(self) -> list[str]:
        """What the client sent and nobody asked for."""
        return sorted(set(self._values) - self._known)
