"""What the tests of building a release share: small archives, wheels made by hand, a web server, the two programs."""

from __future__ import annotations

import contextlib
import getpass
import http.server
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
FILES = ROOT / "roles/release/files"
VERSION_FILE = {"file": "version.py", "pattern": r'^APP_VERSION = "([^"]+)"'}
CREATES = "prod-static/serve"

# The programs' parts are imported from where they lie, and a compiled file there would be copied to builders.
before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
sys.path.insert(0, str(FILES))
import release_shelf.sources  # noqa: E402, F401

sys.dont_write_bytecode = before


def make_tar(path: Path, files: dict[str, str | tarfile.TarInfo], mode: str = "w:gz") -> Path:
    """Write a tar archive of texts by name; a member of another kind is given whole."""
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            if isinstance(content, tarfile.TarInfo):
                content.name = name
                tar.addfile(content)
            else:
                member = tarfile.TarInfo(name)
                member.size = len(content.encode())
                tar.addfile(member, io.BytesIO(content.encode()))
    return path


def link(target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    """Return a link for make_tar."""
    member = tarfile.TarInfo()
    member.type, member.linkname = kind, target
    return member


def make_wheel(
    folder: Path, name: str, version: str = "1.0", requires: str = "", scripts: dict[str, str] | None = None
) -> Path:
    """Write a wheel of one module, NAME.py, which knows its version."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    needs = f"Requires-Dist: {requires}\n" if requires else ""
    texts = {
        f"{name}.py": f'VERSION = "{version}"\n',
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        **{f"{name}-{version}.data/scripts/{script}": text for script, text in (scripts or {}).items()},
    }
    texts[f"{info}/RECORD"] = "".join(f"{each},,\n" for each in [*texts, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w") as wheel:
        for each, text in texts.items():
            member = zipfile.ZipInfo(each)
            member.external_attr = (0o100755 if "/scripts/" in each else 0o100644) << 16
            wheel.writestr(member, text)
    return path


class Shelf:
    """The program release-shelf with a shelf of its own."""

    def __init__(self, directory: Path):
        self.directory = directory

    def command(self, name: str) -> list[str]:
        """Return the command line of a subcommand."""
        return [sys.executable, "-B", str(FILES / "release-shelf"), name, "--shelf", str(self.directory)]

    def run(self, name: str, request: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        """Run a subcommand."""
        environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
        return subprocess.run(
            self.command(name), input=json.dumps(request), capture_output=True, text=True, env=environment
        )

    def source(self, **request: Any) -> dict[str, Any]:
        """Describe a source."""
        done = self.run("source", self.request(**request))
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def refusal(self, **request: Any) -> str:
        """Return the one line that a source is refused with; nothing may be left half-written."""
        done = self.run("source", self.request(**request))
        assert (done.returncode, done.stdout) == (1, "")
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert [path.name for path in self.directory.rglob(".part*")] == []
        return done.stderr.strip()

    def archives(self) -> list[str]:
        """Return the names of the archives that are kept."""
        return sorted(path.name for path in (self.directory / "sources").glob("*.tar*"))

    @staticmethod
    def request(**request: Any) -> dict[str, Any]:
        """Return a whole request."""
        empty = dict.fromkeys(("source", "default_source", "sha256", "git_url", "git_ref"), "")
        return {**empty, "version": VERSION_FILE, "oldest": "9.0", "creates": CREATES, **request}


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """An empty shelf."""
    return Shelf(tmp_path / "shelf")


class Web:
    """A web server of a folder. It remembers requests, and can be told to misbehave."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.requests: list[tuple[str, dict[str, str], int]] = []
        self.cut = False
        self.redirect: dict[str, str] = {}
        self.gate: threading.Event | None = None
        web = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path in web.redirect:
                    self.answer(302, b"", {"Location": web.redirect[path]})
                    return
                file = web.folder / path.lstrip("/")
                if not file.is_file():
                    self.answer(404, b"")
                    return
                data = file.read_bytes()
                tag = f'"{hash(data)}"'
                if self.headers.get("If-None-Match") == tag:
                    self.answer(304, b"")
                else:
                    self.answer(200, data, {"ETag": tag})

            def answer(self, code: int, data: bytes, headers: dict[str, str] | None = None) -> None:
                web.requests.append((self.path, dict(self.headers), code))
                self.send_response(code)
                for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data[: len(data) // 2] if web.cut else data[:100])
                if web.gate:
                    self.wfile.flush()
                    web.gate.wait(20)
                if not web.cut:
                    with contextlib.suppress(OSError):
                        self.wfile.write(data[100:])

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, name: str, userinfo: str = "") -> str:
        """Return the URL of a file."""
        return f"http://{userinfo}127.0.0.1:{self.server.server_address[1]}/{name}"


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    """A web server of tmp_path/web."""
    (tmp_path / "web").mkdir()
    server = Web(tmp_path / "web")
    yield server
    if server.gate:
        server.gate.set()
    server.server.shutdown()
    server.server.server_close()


@pytest.fixture
def tarball(tmp_path: Path) -> Callable[..., Path]:
    """Makes a release tarball with one folder at its top."""

    def make(name: str = "app-9.1.tar.gz", version: str = "9.1", assets: bool = False, mode: str = "w:gz") -> Path:
        files: dict[str, Any] = {
            "app-9.1/version.py": f'APP_VERSION = "{version}"\n',
            # Others of that name are not the release's.
            "app-9.1/vendor/version.py": 'APP_VERSION = "1"\n',
            "app-9.1/text": "text\n" * 2000,
        }
        if assets:
            files[f"app-9.1/{CREATES}/app.js"] = "x\n"
        return make_tar(tmp_path / name, files, mode)

    return make


class Build:
    """The program release-build with a builder of its own."""

    def __init__(self, directory: Path, wheels: Path):
        self.directory = directory
        self.wheels = wheels
        self.specification = directory / "build.json"
        self.venvs = directory / "venvs"

    def spec(self, source: Path, **changes: Any) -> dict[str, Any]:
        """Return a specification."""
        number = changes.get("id", "0f3a")
        return {
            "account": getpass.getuser(),
            "directory": str(self.directory / "build"),
            "source": str(source),
            "source_info": {"kind": "tarball", "digest": "d", "origin": "app-9.1.tar.gz", "commit": ""},
            "artifact": f"app-9.1-trixie-{number}.tar.zst",
            "id": number,
            "profile": "app",
            "version": "9.1",
            "codename": "trixie",
            "venv": str(self.venvs / number),
            "venv_link": ".venv",
            "python_minimum": "3.8",
            "python_below": "4.0",
            "requirements": [],
            "binary_only": True,
            "steps": [],
            "links": {},
            **changes,
            "environment": {
                "PIP_NO_INDEX": "1",
                "PIP_FIND_LINKS": str(self.wheels),
                "PIP_CONFIG_FILE": os.devnull,
                **changes.get("environment", {}),
            },
        }

    def start(self, source: Path, **changes: Any) -> subprocess.CompletedProcess[str]:
        """Run the program."""
        self.directory.mkdir(exist_ok=True)
        self.specification.write_text(json.dumps(self.spec(source, **changes)))
        command = [sys.executable, "-B", str(FILES / "release-build"), str(self.specification)]
        return subprocess.run(command, capture_output=True, text=True)

    def run(self, source: Path, **changes: Any) -> dict[str, Any]:
        """Build, and return the summary."""
        done = self.start(source, **changes)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def refusal(self, source: Path, **changes: Any) -> str:
        """Return the last line of a build that fails, which is the one that the operator reads."""
        done = self.start(source, **changes)
        assert (done.returncode, done.stdout) == (1, "")
        return done.stderr.splitlines()[-1]

    def unpacked(self, result: dict[str, Any], target: Path) -> Path:
        """Unpack an artefact."""
        target.mkdir()
        plain = subprocess.run(["zstd", "-dc", result["path"]], stdout=subprocess.PIPE, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
            tar.extractall(target, **({"filter": "tar"} if hasattr(tarfile, "tar_filter") else {}))  # type: ignore[arg-type]
        return target


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """A builder with an empty folder of wheels."""
    (tmp_path / "wheels").mkdir()
    return Build(tmp_path / "builder", tmp_path / "wheels")
