"""python -m tests.load.mark HISTORY NAME [KEY=VALUE ...]: draws a fault or a phase into a running history."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.load.history import History


def main(arguments: list[str]) -> int:
    """Append one mark to a history that exists."""
    if len(arguments) < 2 or not all(item.partition("=")[1] for item in arguments[2:]):
        print(__doc__, file=sys.stderr)
        return 2
    path, name, *pairs = arguments
    if not Path(path).exists():
        print(f"{path}: no such history", file=sys.stderr)
        return 2
    data = {key: value for key, _, value in (pair.partition("=") for pair in pairs)}
    history = History(path)
    history.mark(name, **data)
    history.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
