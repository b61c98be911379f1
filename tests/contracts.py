"""Checks that roles keep the contract: specs equal to defaults, small task files, names, hidden failures explained."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
TASK_LINES = 150
HIDES = re.compile(r"(ignore_errors: *true|failed_when: *false|changed_when: *false|validate_certs: *false)")
WHOLE = re.compile(r"""set_fact: *["']""")
TEMPLATE = re.compile(r"\{\{.*?\}\}", re.S)
QUOTED = re.compile(r"""'[^']*'|"[^"]*\"""")
PART = re.compile(r"import_playbook: \S*\bsite/(\w+)\.yml")
NOT_RESTORED = {"backup_check"}
"""It asks whose the backups are, which a restore does in its own way."""
TASK_NAME = re.compile(r"^\s*- name: (?P<name>.+)$")


def load(path: Path) -> dict:
    """Return a YAML mapping, empty for a file that is missing."""
    return (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.exists() else {}


def role_problems(role: Path) -> list[str]:
    """Return what a role lacks."""
    specs = load(role / "meta/argument_specs.yml").get("argument_specs", {})
    if "main" not in specs:
        return [f"{role.name}: meta/argument_specs.yml has no entry point main"]
    options = specs["main"].get("options") or {}
    defaults = load(role / "defaults/main.yml")
    problems = []
    for name in sorted(set(defaults) - set(options)):
        problems.append(f"{role.name}: {name} has a default and no specification")
    for name, option in sorted(options.items()):
        if not option.get("description"):
            problems.append(f"{role.name}: {name} has no description")
        if not name.startswith(f"{role.name}_"):
            problems.append(f"{role.name}: {name} lacks the role's prefix")
        if option.get("required") and name in defaults:
            problems.append(f"{role.name}: {name} is required and has a default")
        if not option.get("required") and name not in defaults:
            problems.append(f"{role.name}: {name} is neither required nor has a default")
        if name in defaults and "default" in option and option["default"] != defaults[name]:
            problems.append(
                f"{role.name}: {name} defaults to {defaults[name]!r}, its specification says {option['default']!r}"
            )
    for name in load(role / "vars/main.yml"):
        if not name.startswith(f"__{role.name}_"):
            problems.append(f"{role.name}: {name} in vars/ is private and must start with __{role.name}_")
    return problems


def task_problems(path: Path) -> list[str]:
    """Return what is wrong with a file of tasks, by its text."""
    lines = path.read_text(encoding="utf-8").splitlines()
    where = path.relative_to(ROOT)
    problems = [f"{where}: {len(lines)} lines, more than one concern"] if len(lines) > TASK_LINES else []
    for number, line in enumerate(lines, 1):
        before = lines[max(0, number - 8) : number]
        if HIDES.search(line) and not any("#" in other for other in before):
            problems.append(f"{where}:{number}: hides a result without a comment that says why")
        name = TASK_NAME.match(line)
        if name and path.name != "main.yml" and " | " not in name["name"]:
            problems.append(f"{where}:{number}: a task is named `Concern | Verb the object`")
    return problems


def fact_problems(path: Path) -> list[str]:
    """Return where a template stands in the place of all facts: it sets none, and says nothing."""
    lines = path.read_text(encoding="utf-8").splitlines()
    where = path.relative_to(ROOT)
    return [f"{where}:{number}: set facts one by one" for number, line in enumerate(lines, 1) if WHOLE.search(line)]


def endless_problems(path: Path) -> list[str]:
    """Return where a variable of a task or play is made from itself: variables are lazy, so that it has no end."""
    problems, left = [], [yaml.safe_load(path.read_text(encoding="utf-8"))]
    while left:
        node = left.pop()
        if isinstance(node, dict):
            left += node.values()
            own = node.get("vars")
            for name, value in own.items() if isinstance(own, dict) else ():
                used = "".join(TEMPLATE.findall(QUOTED.sub("", str(value))))
                if re.search(rf"(?<![\w.]){re.escape(name)}\b(?!=)", used):
                    problems.append(f"{path.relative_to(ROOT)}: {name} is made from itself")
        elif isinstance(node, list):
            left += node
    return problems


def restore_problems() -> list[str]:
    """Return the parts of the site that a restored one would lack: it is made of the same parts, in another order."""
    converged, restored = (
        set(PART.findall((ROOT / path).read_text())) for path in ("site.yml", "playbooks/restore/site.yml")
    )
    lacking = converged - restored - NOT_RESTORED
    return [f"playbooks/restore/site.yml: lacks the part {part} of site.yml" for part in sorted(lacking)]


def main() -> int:
    """Print every problem; return the exit status."""
    roles = sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir())
    problems = [problem for role in roles for problem in role_problems(role)]
    for path in sorted((ROOT / "roles").glob("*/tasks/*.yml")):
        problems += task_problems(path)
    for folder in ("roles", "playbooks", "lab"):
        for path in sorted((ROOT / folder).rglob("*.yml")):
            problems += fact_problems(path) + endless_problems(path)
    problems += restore_problems()
    for line in problems:
        print(line)
    if not roles:
        print("no role was found")
    return 1 if problems or not roles else 0


if __name__ == "__main__":
    sys.exit(main())
