"""Names and types of the variables that an inventory sets."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .known import Known
from .places import at, place

try:
    from ansible.parsing.vault import EncryptedString
except ImportError:  # an unsupported ansible-core still has to be told so

    class EncryptedString:  # type: ignore[no-redef]
        """Nothing is one."""


# What a YAML scalar of each type has to be. `bool` is a kind of `int` in Python and must not pass as one.
_SCALARS: dict[str, tuple[tuple[type, ...], str]] = {
    "bool": ((bool,), "true or false"),
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "str": ((str,), "text"),
    "path": ((str,), "a path"),
    "list": ((list, tuple), "a list"),
    "dict": ((dict,), "a mapping"),
}
_TRUE = frozenset({"true", "yes", "on", "y", "1"})
_FALSE = frozenset({"false", "no", "off", "n", "0"})


@dataclass
class Layer:
    """Variables as one file of the inventory, one host or group entry, or the command line sets them."""

    variables: dict[str, Any]
    file: Path | None = None
    hosts: tuple[str, ...] = ()
    command_line: bool = False

    def where(self, name: str) -> str:
        """Return the place of a variable of this layer."""
        if self.command_line:
            return "command line (-e)"
        # true, false and null cannot carry a tag; the key next to them does
        key = next((key for key in self.variables if key == name), name)
        return place(self.variables[name], key, file=self.file)


def one_edit(first: str, second: str) -> bool:
    """Tell whether one letter added, left out or changed, or two neighbours swapped, make one name of the other."""
    if len(first) > len(second):
        first, second = second, first
    if len(second) - len(first) > 1 or first == second:
        return False
    index = next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), len(first))
    if len(first) < len(second):
        return first[index:] == second[index + 1 :]
    swapped = first[index : index + 2] == second[index : index + 2][::-1] and first[index + 2 :] == second[index + 2 :]
    return first[index + 1 :] == second[index + 1 :] or swapped


def closest(name: str, candidates: Iterable[str]) -> str:
    """Return `; do you mean ...?` for the candidate that looks like the name, or an empty string."""
    match = difflib.get_close_matches(name, list(candidates), n=1, cutoff=0.75)
    return f"; do you mean `{match[0]}`?" if match else ""


def _name_problem(name: str, known: Known, candidates: dict[int, list[str]]) -> str | None:
    """Return what is wrong with the name of a variable, or None."""
    if name in known.renamed:
        entry = known.renamed[name]
        return f"`{name}` is now named `{entry['new']}` (since {entry['since']}); rename it"
    if name in known.names:
        return None
    if name in known.private or (name.startswith("__") and known.is_ours(name[2:])):
        public = name.lstrip("_")
        hint = f"; set `{public}` instead" if public in known.names else "; remove it"
        return f"`{name}` is private to its role and may change at any time{hint}"
    if known.is_ours(name):
        hint = closest(name, known.names)
        return f"unknown variable `{name}`" + (hint or "; remove it, or begin a variable of your own with another word")
    if not name.startswith("ansible_"):
        near = (n for size in range(len(name) - 1, len(name) + 2) for n in candidates.get(size, ()))
        match = next((candidate for candidate in near if one_edit(name, candidate)), None)
        if match:
            return f"unknown variable `{name}`; do you mean `{match}`?"
    return None


def is_template(value: Any) -> bool:
    """Tell whether a value is text that Ansible would render first."""
    return isinstance(value, str) and ("{{" in value or "{%" in value)


def _shown(value: Any) -> str:
    """Return a value for a message, short."""
    text = repr(value) if not isinstance(value, str) else f'"{value}"'
    text = {True: "true", False: "false"}.get(value, text) if isinstance(value, bool) else text
    return text if len(text) <= 40 and "\n" not in text else f"{text[:36].splitlines()[0]}..."


def _advice(value: Any, wanted: str) -> str:
    """Return what to write instead of a value of the wrong type."""
    if wanted == "bool" and str(value).lower() in _TRUE | _FALSE:
        return f"write {'true' if str(value).lower() in _TRUE else 'false'} without quotes"
    if wanted in ("int", "float") and isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return f"write {_SCALARS[wanted][1]}"
        return f"write {value} without quotes"
    if wanted in ("str", "path") and isinstance(value, (bool, int, float)):
        return "put it in quotes"
    if wanted == "list" and isinstance(value, (str, int)):
        return f"write [{value}]"
    return f"write {_SCALARS[wanted][1]}"


def type_problems(name: str, value: Any, spec: dict[str, Any], *, secret: bool = False) -> Iterable[str]:
    """Yield what is wrong with a value, given its argument spec. Stricter than Ansible, which turns "no" into false."""
    # null means "not given"; a template inside a list or mapping is known only on its host
    if value is None or isinstance(value, EncryptedString) or is_template(value):
        return
    wanted, choices = spec.get("type", "str"), spec.get("choices")
    if wanted not in _SCALARS:
        return  # raw and the like: the role's own check
    kinds, kind = _SCALARS[wanted]
    if not isinstance(value, kinds) or (isinstance(value, bool) and wanted in ("int", "float")):
        shown = "something else" if secret else _shown(value)
        advice = f"choose {' or '.join(map(str, choices))}" if choices else _advice(value, wanted)
        yield f"`{name}` has to be {kind}, not {shown}; {advice}"
        return
    if choices and wanted != "list" and value not in choices:
        yield f"`{name}` cannot be {_shown(value)}; choose {' or '.join(map(str, choices))}"
    if isinstance(value, (list, tuple)) and "elements" in spec:
        element = {key: spec[key] for key in ("choices", "options") if key in spec} | {"type": spec["elements"]}
        for index, item in enumerate(value):
            yield from type_problems(f"{name}[{index}]", item, element, secret=secret)
    elif isinstance(value, dict) and spec.get("options"):
        yield from _option_problems(name, value, spec["options"], secret)


def _option_problems(name: str, value: dict[str, Any], options: dict[str, Any], secret: bool) -> Iterable[str]:
    """Yield what is wrong with the keys of a mapping that has a fixed set of them."""
    names = {alias: key for key, spec in options.items() for alias in (key, *(spec.get("aliases") or ()))}
    for key, item in value.items():
        if key in names:
            yield from type_problems(f"{name}.{key}", item, options[names[key]] or {}, secret=secret)
        else:
            hint = closest(str(key), names) or f"; known are {', '.join(sorted(options))}"
            yield f"`{name}` has an unknown key `{key}`{hint}"
    given = {names[key] for key in value if key in names}
    for key, spec in options.items():
        if (spec or {}).get("required") and key not in given:
            yield f"`{name}` lacks the key `{key}`; add it"


def check(
    layers: Iterable[Layer], known: Known, shipped: Path, render: Callable[[str, str], Any] | None = None
) -> Iterable[str]:
    """Yield the problems of all variables that the layers set.

    shipped: folder of our own variables, whose types need no check (unit tests hold them to the contract).
    render: (host, name) -> the variable as that host sees it; raises when it cannot be known yet.
    """
    candidates: dict[int, list[str]] = {}
    for candidate in sorted(known.names):
        candidates.setdefault(len(candidate), []).append(candidate)
    for layer in layers:
        if layer.file and shipped in layer.file.resolve().parents:
            continue
        for name, value in layer.variables.items():
            problem = _name_problem(name, known, candidates)
            if problem:
                yield at(layer.where(name), problem)
            elif name in known.specs:
                for problem in _value_problems(name, value, layer, known, render):
                    yield at(layer.where(name), problem)


def _value_problems(
    name: str, value: Any, layer: Layer, known: Known, render: Callable[[str, str], Any] | None
) -> Iterable[str]:
    """Return the distinct problems of one variable of one layer, rendered for the layer's hosts if it is a template."""
    spec, secret = known.specs[name], name.startswith("vault_")
    if not is_template(value):
        problems = dict.fromkeys(type_problems(name, value, spec, secret=secret))
        # -e NAME=VALUE hands over text, whatever it looks like.
        other = layer.command_line and isinstance(value, str) and spec.get("type") in ("bool", "int", "float", "list")
        if not other or secret:
            return problems
        written = f"[{value}]" if spec["type"] == "list" else value
        return [f'{problem}, as in -e "{{{name}: {written}}}"' for problem in problems]
    found: dict[str, None] = {}
    for host in layer.hosts if render else ():
        try:
            rendered = render(host, name)  # type: ignore[misc]
        except Exception:  # noqa: BLE001
            continue  # stands on facts that nobody has gathered yet; the role's own check sees it later
        found |= dict.fromkeys(type_problems(name, rendered, spec, secret=secret))
    return found
