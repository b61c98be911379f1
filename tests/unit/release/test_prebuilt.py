"""A virtualenv that was made elsewhere runs at its new path, or is refused in one line before anything is kept."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from release_build.prebuilt import library_problems

from .conftest import Build, make_tar, make_wheel

HERE = ".".join(map(str, sys.version_info[:2]))
SITE = f"lib/python{HERE}/site-packages"


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtualenv with a program and no pip, as other tools make it."""
    folder = tmp_path_factory.mktemp("elsewhere")
    venv = folder / "made" / "app"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    with zipfile.ZipFile(make_wheel(folder, "good")) as wheel:
        wheel.extractall(venv / SITE)
    program = venv / "bin/good"
    program.write_text(f"#!{venv}/bin/python\nimport good, sys\nprint(good.VERSION, sys.prefix)\n")
    program.chmod(0o755)
    return venv


@pytest.fixture
def archived(elsewhere: Path, tmp_path: Path) -> Callable[..., str]:
    """Packs the virtualenv after a change."""

    def make(change: Callable[[Path], object] = lambda venv: None, top: str = "app") -> str:
        copy = tmp_path / "copy"
        shutil.copytree(elsewhere, copy, symlinks=True)
        change(copy)
        with tarfile.open(tmp_path / "venv.tar.gz", "w:gz") as tar:
            tar.add(copy, arcname=top)
        return str(tmp_path / "venv.tar.gz")

    return make


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A release without requirements."""
    return make_tar(tmp_path / "app.tar.gz", {"version.py": "x = 1\n"})


@pytest.mark.parametrize("top", ["app", "."])
def test_it_runs_at_its_new_path(build: Build, archived: Callable[..., str], source: Path, top: str) -> None:
    # One is there already; another is added, which takes seconds, so only once.
    extra = ["good==1.0", "extra"] if top == "app" else ["good==1.0"]
    make_wheel(build.wheels, "extra")
    venv = build.venvs / "0f3a"
    steps = [[str(venv / "bin/good")], [str(venv / "bin/python"), "-c", "import good" + ", extra" * (top == "app")]]
    result = build.run(
        source,
        venv_archive=archived(top=top),
        requirements=["not-looked-at.txt"],
        extra_requirements=extra,
        replacements={"good": "x"},
        steps=steps,
    )
    said = subprocess.run([venv / "bin/good"], capture_output=True, text=True, check=True).stdout
    assert said == f"1.0 {venv}\n"
    assert (venv / "bin/good").read_text().splitlines()[0] == f"#!{venv}/bin/python"
    assert f"VIRTUAL_ENV={venv}" in (venv / "bin/activate").read_text().replace('"', "").replace("'", "")
    assert os.readlink(venv / "bin/python3") == sys._base_executable  # type: ignore[attr-defined]
    assert f"home = {os.path.dirname(sys._base_executable)}\n" in (venv / "pyvenv.cfg").read_text()  # type: ignore[attr-defined]
    assert result["notes"] == ["release_requirement_replacements was not used: the virtualenv is a prebuilt one"]
    assert [path.name for path in build.venvs.iterdir()] == ["0f3a"]


def refuse(build: Build, source: Path, archive: str) -> str:
    """Return the line that an archive is refused with; nothing of it may stay."""
    line = build.refusal(source, venv_archive=archive)
    assert list(build.venvs.iterdir()) == []
    return line


def test_another_python_is_refused(build: Build, archived: Callable[..., str], source: Path) -> None:
    def change(venv: Path) -> None:
        (venv / f"lib/python{HERE}").rename(venv / "lib/python3.7")
        (venv / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.7.4\n")

    line = refuse(build, source, archived(change))
    assert line == f"the prebuilt virtualenv is one of Python 3.7, and this host has Python {HERE}"


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ({"codename": "bookworm"}, "was built for the distribution bookworm, and this host has trixie"),
        ({"codename": "trixie", "architecture": "s390x"}, "was built for the processor s390x"),
    ],
)
def test_one_of_ours_for_another_host_is_refused(
    build: Build, archived: Callable[..., str], source: Path, marker: dict[str, str], message: str
) -> None:
    assert message in refuse(
        build, source, archived(lambda venv: (venv / ".zulip-ha.json").write_text(json.dumps(marker)))
    )


def module() -> bytes:
    """Return a compiled module of this machine that needs the C library."""
    for folder in (Path(sysconfig.get_path("stdlib")) / "lib-dynload", Path("/usr/lib/x86_64-linux-gnu")):
        for path in sorted([*folder.glob("*.so"), *folder.glob("libz.so.1")]):
            if b"libc.so.6\0" in (data := path.read_bytes()):
                return data
    pytest.skip("this machine has no compiled module to take for a test")


def test_a_module_that_needs_a_library_that_is_not_here(
    build: Build, archived: Callable[..., str], source: Path
) -> None:
    changed = module().replace(b"libc.so.6\0", b"libQ.so.6\0")
    line = refuse(build, source, archived(lambda venv: (venv / SITE / "some.so").write_bytes(changed)))
    assert f"{SITE}/some.so needs libQ.so.6, which this host does not have" in line
    assert "release_builder_packages" in line


def test_a_module_for_another_processor(build: Build, archived: Callable[..., str], source: Path) -> None:
    data = bytearray(module())
    data[18:20] = b"\xf3\x00" if bytes(data[18:20]) != b"\xf3\x00" else b"\x3e\x00"
    line = refuse(build, source, archived(lambda venv: (venv / SITE / "some.so").write_bytes(data)))
    assert line == f"the prebuilt virtualenv's {SITE}/some.so was compiled for another processor"


def test_what_ldd_says() -> None:
    output = """/v/lib/a.so:
/v/lib/a.so: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.38' not found (required by /v/lib/a.so)
\tlinux-vdso.so.1 (0x0)
\tlibvips.so.42 => not found
\tlibgrafted-1.so => not found
/v/lib/b.so:
\tlibvips.so.42 => not found
"""
    assert library_problems(output, Path("/v"), Path("/v/lib/a.so"), {"libgrafted-1.so"}) == [
        "lib/a.so needs GLIBC_2.38, which this host's is too old for",
        "lib/a.so needs libvips.so.42, which this host does not have",
        "lib/b.so needs libvips.so.42, which this host does not have",
    ]
    # With one file ldd does not say which.
    output = "\tlibx.so => not found\n"
    assert library_problems(output, Path("/v"), Path("/v/lib/a.so"), set()) == [
        "lib/a.so needs libx.so, which this host does not have"
    ]


def test_what_holds_no_virtualenv(build: Build, source: Path, tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "venv.tar.gz", {"a/b": "", "c": ""})
    assert refuse(build, source, str(archive)).startswith("the virtualenv's archive holds no virtualenv")
    archive.write_bytes(b"x" * 600)
    assert refuse(build, source, str(archive)) == "the virtualenv's archive is damaged, or no tar archive at all"
