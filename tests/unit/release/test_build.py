"""The build program, with real virtualenvs and wheels made by hand; no network."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from .conftest import CREATES, FILES, Build, make_tar, make_wheel

SECRET = "s3cr3t-word"


def pinned(*wheels: Path) -> str:
    """Return a requirement file with hashes."""
    lines = []
    for wheel in wheels:
        name, version = wheel.name.split("-")[:2]
        lines.append(f"{name}=={version} \\\n    --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n")
    return "".join(lines)


@pytest.fixture
def source(tmp_path: Path, build: Build) -> Path:
    """A release tarball that wants four packages, two of which nobody has."""
    never = make_wheel(tmp_path / "elsewhere", "never_mind")
    lost = make_wheel(tmp_path / "elsewhere", "lost_one")
    # A requirement that was taken out must not come back through another.
    good = make_wheel(build.wheels, "good", requires="lost-one")
    plain = make_wheel(build.wheels, "plain")
    files = {
        "app-9.1/version.py": 'APP_VERSION = "9.1"\n',
        "app-9.1/requirements/prod.txt": pinned(lost, good, never),
        "app-9.1/requirements/more.txt": pinned(plain),
        "app-9.1/workers/a.py": '@worker("second")\n@worker("noop")\n',
        "app-9.1/workers/b.py": '@worker("first")\n',
        "app-9.1/data/words.stop": "der\ndie\n",
        f"app-9.1/{CREATES}/app.js": "x\n",
    }
    return make_tar(tmp_path / "app-9.1.tar.gz", files)


def complete(build: Build) -> None:
    """Pretend that the virtualenv is there already: to make one takes seconds."""
    venv = build.venvs / "0f3a"
    venv.mkdir(parents=True)
    (venv / ".zulip-ha.json").write_text("{}")


REQUIREMENTS = ["requirements/prod.txt", "requirements/more.txt"]
SURVEY = {"queues": {"files": "workers/*.py", "pattern": r'^@worker\("(\w+)"\)', "exclude": ["noop"]}}


def test_a_release_with_replacements_additions_and_a_survey(build: Build, source: Path, tmp_path: Path) -> None:
    instead = make_wheel(tmp_path / "mine", "lost_one", "2.0", requires="nobody-has-this")
    make_wheel(build.wheels, "extra", "3.0")
    python = str(build.venvs / "0f3a/bin/python")
    result = build.run(
        source,
        requirements=REQUIREMENTS,
        replacements={"Lost.One": str(instead), "never-mind": "", "mistyped": "x"},
        extra_requirements=["extra==3.0"],
        survey=SURVEY,
        publish={"tsearch": {"app.stop": "data/words.stop"}},
        assets={"creates": CREATES, "tools": ["nobody-has-this"], "npm": [], "environment": {}, "steps": [["false"]]},
        venv_files={"bin/activate_this.py": "# text\n"},
        links={"settings.py": "/etc/app/settings.py"},
        steps=[[python, "-c", "import lost_one, good, plain, extra; open('said', 'w').write(lost_one.VERSION)"]],
    )
    manifest = result["manifest"]
    assert manifest["found"] == {"queues": ["first", "second"]}
    assert manifest["published"] == {"tsearch": {"app.stop": "der\ndie\n"}}
    assert manifest["source"] == {"kind": "tarball", "digest": "d", "origin": "app-9.1.tar.gz", "commit": ""}
    assert result["notes"] == ["release_requirement_replacements names what no requirement file has: mistyped"]
    assert hashlib.sha256(Path(result["path"]).read_bytes()).hexdigest() == result["sha256"]
    marker = json.loads((build.venvs / "0f3a/.zulip-ha.json").read_text())
    assert not {"found", "published", "source"} & set(marker)
    assert marker["id"] == "0f3a"
    # It may hold credentials.
    assert not build.specification.exists()

    tree = build.unpacked(result, tmp_path / "unpacked")
    assert (tree / "release/said").read_text() == "2.0"
    assert os.readlink(tree / "release/settings.py") == "/etc/app/settings.py"
    assert os.readlink(tree / "release/.venv") == str(build.venvs / "0f3a")
    assert (tree / "venv/bin/activate_this.py").read_text() == "# text\n"
    inner = json.loads((tree / "manifest.json").read_text())
    assert inner["files"]["release/version.py"] == hashlib.sha256(b'APP_VERSION = "9.1"\n').hexdigest()
    # The virtualenv is complete, so nothing is installed again; the same input gives the same files.
    again = build.unpacked(build.run(source, survey=SURVEY), tmp_path / "again")
    files = json.loads((again / "manifest.json").read_text())["files"]
    assert files.items() <= inner["files"].items()
    assert any(name.startswith("venv/") for name in files)


def test_a_requirement_that_cannot_be_had_is_named_and_credentials_are_not(build: Build, source: Path) -> None:
    environment = {"PIP_NO_INDEX": "", "PIP_INDEX_URL": f"http://me:{SECRET}@127.0.0.1:9/simple", "PIP_RETRIES": "1"}
    done = build.start(source, requirements=REQUIREMENTS, environment=environment)
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert line == (
        "the requirement lost_one==1.0 cannot be had: no index answered (Connection refused); "
        "give an index in release_pip_environment or a replacement in release_requirement_replacements"
    )
    # The output that explains it comes before, so that an error can be read.
    assert "http://***@127.0.0.1:9/simple" in done.stderr or "http://me:****@" in done.stderr
    assert SECRET not in done.stderr + done.stdout
    assert not (build.venvs / "0f3a/.zulip-ha.json").exists()
    assert not list((build.directory / "build").glob("*.zst"))


def test_a_failing_step_says_its_last_line_without_credentials(build: Build, source: Path) -> None:
    script = f"echo first; echo the token is {SECRET}; exit 3"
    steps = [["sh", "-c", script]]
    complete(build)
    done = build.start(source, steps=steps, environment={"SOME_TOKEN": SECRET})
    assert done.stderr.splitlines()[-1].endswith("failed with 3: the token is ***")
    assert "first" in done.stderr
    assert SECRET not in done.stderr


FAKE_UV = """#!/bin/sh
# Not uv: writes what the lock file says to where the last argument says.
[ "$1 $2" = "export --frozen" ] || exit 1
for word; do case $word in --output-file=*) cp uv.lock "${word#*=}";; --only-group=*) echo "$word" >&2;; esac; done
"""
FAKE_NPM = """#!/bin/sh
for word; do case $word in --prefix=*) prefix=${word#*=};; esac; done
mkdir -p "$prefix/bin" && printf '#!/bin/sh\\nmkdir -p "$1" && echo "$COLOUR" > "$1/app.js"\\n' > "$prefix/bin/bundler"
chmod +x "$prefix/bin/bundler"
"""


def test_a_checkout_gets_its_lock_exported_and_its_assets_made(build: Build, tmp_path: Path) -> None:
    make_wheel(build.wheels, "uv", "0.5.1", scripts={"uv": FAKE_UV})
    make_wheel(build.wheels, "node_wheel", "22.0", scripts={"npm": FAKE_NPM})
    files = {"version.py": "", "uv.lock": pinned(make_wheel(build.wheels, "good"))}
    source = make_tar(tmp_path / "app.tar.gz", files)
    assets: dict[str, Any] = {
        "creates": CREATES,
        "tools": ["node-wheel==22.*"],
        "npm": ["bundler@9"],
        "environment": {"COLOUR": "green"},
        "steps": [["bundler", CREATES]],
    }
    python = str(build.venvs / "0f3a/bin/python")
    result = build.run(
        source,
        uv_export={"group": "prod", "uv": "uv==0.5.*"},
        assets=assets,
        steps=[[python, "-c", f"import good; open('{CREATES}/app.js')"], ["sh", "-c", "! command -v bundler"]],
    )
    tree = build.unpacked(result, tmp_path / "unpacked")
    assert (tree / f"release/{CREATES}/app.js").read_text() == "green\n"
    assert not (build.directory / "build/work").exists()
    refusal = build.refusal(source, assets={**assets, "steps": [["true"]]})
    assert refusal == f"the steps that make the assets have made no {CREATES}"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"python_minimum": "3.99"}, "and the release wants 3.99 or newer"),
        ({"account": "nobody-of-that-name"}, "no account nobody-of-that-name"),
        ({"requirements": ["none.txt"]}, "the release has no file of requirements none.txt"),
        ({"survey": {"queues": {"files": "*.py", "pattern": "^(x)$"}}}, "the release has no queues"),
        ({"publish": {"a": {"b": "none"}}}, "the release has no none, which is published as b"),
        ({"assets": {"creates": "made", "steps": []}}, "has no made, and the profile does not make it"),
        ({"steps": [["ln", "-s", "/etc", "out"]], "publish": {"a": {"b": "out/passwd"}}}, "leads outside"),
        ({"steps": [["ln", "-s", "/tmp", "out"]], "links": {"out/x": "/y"}}, "leads outside"),
    ],
)
def test_what_cannot_be_built_is_one_line(build: Build, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    if "requirements" not in changes:
        complete(build)
    source = make_tar(tmp_path / "app.tar.gz", {"version.py": "nothing\n"})
    assert message in build.refusal(source, **changes)


def test_a_source_that_was_damaged_on_its_way(build: Build, source: Path) -> None:
    complete(build)
    source.write_bytes(source.read_bytes()[:-40])
    assert build.refusal(source).startswith("the source's archive is ")


def test_a_build_that_was_killed_starts_over(build: Build, source: Path, tmp_path: Path) -> None:
    build.directory.mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "made")], check=True)
    with tarfile.open(tmp_path / "venv.tar", "w") as tar:
        tar.add(tmp_path / "made", arcname=".")
    archive = str(tmp_path / "venv.tar")
    build.specification.write_text(json.dumps(build.spec(source, venv_archive=archive, steps=[["sleep", "60"]])))
    command = [sys.executable, "-B", str(FILES / "release-build"), str(build.specification)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as run:
        assert run.stderr
        for line in run.stderr:
            if "sleep" in line:
                time.sleep(0.2)
                os.killpg(run.pid, signal.SIGKILL)
    venv = build.venvs / "0f3a"
    assert (venv / "bin/python").exists()
    assert not (venv / ".zulip-ha.json").exists()
    (venv / "left").write_text("half")
    build.run(source, venv_archive=archive)
    assert not (venv / "left").exists()
    assert (venv / ".zulip-ha.json").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can hide a folder")
def test_a_step_does_not_see_what_is_hidden(build: Build, source: Path, tmp_path: Path) -> None:
    complete(build)
    hidden = tmp_path / "etc-app"
    hidden.mkdir()
    (hidden / "secrets").write_text("x")
    probe = subprocess.run(["unshare", "--mount", "true"], stderr=subprocess.DEVNULL)
    if probe.returncode:
        pytest.skip("this machine gives nobody a mount namespace")
    build.run(source, hide=[str(hidden), "/none"], steps=[["sh", "-c", f"! ls {hidden}/*"]])
    assert (hidden / "secrets").exists()


@pytest.mark.parametrize(("times", "stamp"), [([1_600_000_000, 1_700_000_000], 1_700_000_000), ([0], 1_577_836_800)])
def test_a_release_is_as_old_as_its_newest_file(tmp_path: Path, times: list[int], stamp: int) -> None:
    from release_build.artifact import age

    for number, when in enumerate(times):
        (tmp_path / str(number)).write_text("x")
        os.utime(tmp_path / str(number), (when, when))
    assert age(tmp_path) == stamp
    (tmp_path / "later").write_text("x")
    os.utime(tmp_path / "later", (4_000_000_000, 4_000_000_000))
    # A time that has not come yet is no release's.
    assert age(tmp_path) == 1_577_836_800


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can put a folder over another")
def test_tools_that_know_one_path_find_a_folder_of_the_build(build: Build, tmp_path: Path) -> None:
    if subprocess.run(["unshare", "--mount", "true"], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("this machine gives nobody a mount namespace")
    complete(build)
    place = tmp_path / "usr-local-bin"
    steps = [
        ["sh", "-ec", f"echo made >{place}/tool"],
        ["sh", "-ec", f"mkdir -p {CREATES}; cp {place}/tool {CREATES}/app.js"],
    ]
    assets = {
        "creates": CREATES,
        "tools": [],
        "npm": [],
        "environment": {},
        "mounts": {str(place): "bin"},
        "steps": steps,
    }
    checkout = make_tar(tmp_path / "app.tar.gz", {"app/version.py": 'APP_VERSION = "9.1"\n'})
    result = build.run(checkout, assets=assets, steps=[["sh", "-c", f"test ! -e {place}/tool"]])
    assert result["manifest"]["version"]
    assert list(place.iterdir()) == []
