"""What the repository knows of: variables, their types, old names and secrets. Read from the files on disk."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

# Prefixes that are ours although no role has that name.
PREFIXES = ("site_", "zulip_", "vault_", "edge_", "app_", "backup_", "local_edits")


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Plain YAML that lets Ansible's tags (!vault, !unsafe) pass: only names and plain values are wanted here."""


_Loader.add_multi_constructor("!", lambda loader, suffix, node: None)


def load(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file; an empty one for a file that is missing or is no mapping."""
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        return {}
    return data if isinstance(data, dict) else {}


@dataclass
class Known:
    """The repository's interface.

    names: every public variable; private: every `__` variable; specs: type information by name; defaults: roles' own;
    renamed: `{old: {new, since}}`; secrets: names that the vault has to have; breaking: `[{since, what, do}]`;
    prefixes: first letters that are ours.
    """

    names: set[str] = field(default_factory=set)
    private: set[str] = field(default_factory=set)
    specs: dict[str, dict[str, Any]] = field(default_factory=dict)
    defaults: dict[str, Any] = field(default_factory=dict)
    renamed: dict[str, dict[str, str]] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=list)
    breaking: list[dict[str, str]] = field(default_factory=list)
    prefixes: tuple[str, ...] = PREFIXES

    def is_ours(self, name: str) -> bool:
        """Tell whether a variable's name says that it belongs to this repository."""
        return name.startswith(self.prefixes)


def _options(path: Path) -> Iterable[tuple[str, dict[str, Any]]]:
    """Yield the options of all entry points of an argument_specs file."""
    for entry in (load(path).get("argument_specs") or {}).values():
        yield from ((entry or {}).get("options") or {}).items()


def secret_names(schema: dict[str, dict[str, Any]]) -> list[str]:
    """Return all variables of a secrets schema, second halves of pairs included."""
    names = []
    for name, entry in schema.items():
        names.append(name)
        names += [entry[half] for half in ("certificate", "public") if half in entry]
    return names


def read(root: Path) -> Known:
    """Collect what the repository at `root` knows of."""
    known = Known()
    roles = sorted(path for path in (root / "roles").glob("*") if path.is_dir())
    for role in roles:
        defaults = load(role / "defaults" / "main.yml")
        known.defaults |= defaults
        known.names |= set(defaults)
        known.private |= set(load(role / "vars" / "main.yml"))
        for name, spec in _options(role / "meta" / "argument_specs.yml"):
            known.specs.setdefault(name, spec or {})
    for path in sorted((root / "group_vars" / "all").rglob("*.yml")):
        known.names |= set(load(path))
    # The site's own contract has the last word on a variable that roles name too.
    known.specs |= {name: spec or {} for name, spec in _options(root / "group_vars" / "argument_specs.yml")}
    variables = root / "playbooks" / "vars"
    known.secrets = secret_names(load(variables / "secrets_schema.yml").get("secrets_schema") or {})
    known.renamed = load(variables / "renamed_variables.yml").get("renamed_variables") or {}
    known.breaking = load(variables / "breaking_changes.yml").get("breaking_changes") or []
    known.names |= {*known.specs, *known.secrets}
    known.names = {name for name in known.names if not name.startswith("__")}
    known.prefixes = tuple(dict.fromkeys((*PREFIXES, *(f"{role.name}_" for role in roles))))
    return known
