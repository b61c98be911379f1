from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ansible.module_utils
import pytest

ROOT = Path(__file__).resolve().parents[3]
# On a host our module utilities live in this package; here they are brought into it.
ansible.module_utils.__path__.append(str(ROOT / "module_utils"))

ME = pwd.getpwuid(os.geteuid()).pw_name
GROUP = str(os.getegid())


class Site:
    """A scratch host: managed files below `etc`, the state beside them."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.etc = base / "etc"
        self.etc.mkdir()
        self.state = base / "state"

    def wish(self, name: str, content: str, **more: Any) -> Any:
        from ansible.module_utils.managed_plan import Wish

        effects = tuple(more.pop("effects", (f"restart:{name}.service",)))
        more = {"owner": ME, "group": GROUP, **more}
        return Wish(path=str(self.etc / name), content=content.encode(), effects=effects, **more)

    def run(self, *files: Any, **more: Any) -> dict[str, Any]:
        from ansible.module_utils.managed_plan import Bundle, run

        options = {key: more.pop(key) for key in ("check_mode", "diff", "carry") if key in more}
        absent = {str(self.etc / name): tuple(effects) for name, effects in more.pop("absent", {}).items()}
        bundle = Bundle(role="demo", host="app1", state_dir=str(self.state), files=files, absent=absent, **more)
        staging = self.base / f"staging{len(list(self.base.iterdir()))}"
        staging.mkdir(mode=0o700)
        return run(bundle, str(staging), **options)

    def settle(self) -> None:
        self.run(settled=("daemon-reload", *(self.ledger().owed)))

    def ledger(self) -> Any:
        from ansible.module_utils.managed_ledger import Ledger

        return Ledger(str(self.state), "demo")

    def write(self, name: str, content: str) -> Path:
        path = self.etc / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path

    def copies(self) -> list[Path]:
        return sorted(path for path in (self.state / "replaced").rglob("*") if path.is_file() or path.is_symlink())

    def snapshot(self) -> dict[str, Any]:
        found = {}
        for root in (self.etc, self.state):
            for path in sorted(root.rglob("*")):
                info = path.lstat()
                found[str(path)] = (
                    info.st_mode,
                    info.st_uid,
                    info.st_mtime_ns,
                    path.read_bytes() if path.is_file() else b"",
                )
        return found


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def refused() -> Callable[..., Any]:
    """Run something that must be refused, and return the error."""
    from ansible.module_utils.managed_ledger import ManagedError

    def call(function: Callable[..., Any], *args: Any, **more: Any) -> ManagedError:
        with pytest.raises(ManagedError) as caught:
            function(*args, **more)
        return caught.value

    return call
