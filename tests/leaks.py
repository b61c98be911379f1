"""Fails when a secret of an inventory's vault stands in a log: tests/leaks.py INVENTORY LOG..."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml


def pieces(value: object) -> list[str]:
    """Return the lines of a secret that are worth looking for; PEM armour and short words are everybody's."""
    lines = [line.strip() for line in str(value).splitlines()]
    return [line for line in lines if len(line) >= 8 and not line.startswith("-----")]


def main() -> int:
    """Print the name of each secret that was found, never its value."""
    inventory, *logs = sys.argv[1:]
    vault = Path(inventory, "group_vars/all/80-secrets.yml")
    shown = subprocess.run(
        [Path(sys.executable).parent / "ansible-vault", "view", vault], check=True, capture_output=True, text=True
    )
    public = ("certificate", "public_key")
    secrets = {name: pieces(value) for name, value in yaml.safe_load(shown.stdout).items() if not name.endswith(public)}
    texts = {log: Path(log).read_text(encoding="utf-8", errors="replace") for log in logs}
    leaks = [
        f"{log}: {name}"
        for log, text in texts.items()
        for name, lines in secrets.items()
        if any(line in text for line in lines)
    ]
    for line in leaks:
        print(f"a secret was printed: {line}")
    if not secrets or not any(texts.values()):
        print("nothing was looked at")
        return 1
    print(f"{len(secrets)} secrets, {sum(map(len, texts.values()))} characters of log, {len(leaks)} leaks")
    return 1 if leaks else 0


if __name__ == "__main__":
    sys.exit(main())
