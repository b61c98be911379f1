"""Room on disks: what a host is asked, and what is refused."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from filter_plugins.report import answered_first, file_bytes
from plugin_utils.report import space

DISK = Path(__file__).resolve().parents[3] / "playbooks/tasks/disk.yml"
GIB = 1024**3
SPACE = {
    "/home": {"exists": True, "mount": "/", "total": 100 * GIB, "free": 2 * GIB},
    "/srv": {"exists": True, "mount": "/", "total": 100 * GIB, "free": 2 * GIB},
    "/db": {"exists": True, "mount": "/db", "total": 100 * GIB, "free": 4 * GIB},
    "/home/there": {"exists": True, "mount": "/", "total": 1, "free": 0},
    "/home/not": {"exists": False, "mount": "/", "total": 1, "free": 0},
}


def test_a_host_is_asked(tmp_path):
    program = yaml.safe_load(DISK.read_text())[0]["block"][0]["vars"]["disk_program"]
    paths = [str(tmp_path), str(tmp_path / "not/there")]
    done = subprocess.run(["/bin/sh", "-c", program, "sh", *paths], check=True, capture_output=True, text=True)
    found = space.disk_space(done.stdout)
    assert [found[path]["exists"] for path in paths] == [True, False]
    assert found[paths[0]]["mount"] == found[paths[1]]["mount"]
    assert found[paths[0]]["total"] > found[paths[0]]["free"] > 0


@pytest.mark.parametrize(
    ("need", "problem"),
    [
        ({"path": "/home", "bytes": 2 * GIB}, ""),
        ({"path": "/home", "bytes": str(3 * GIB)}, "app1: /home (/) has 2.0 GiB free and needs 3.0 GiB for it"),
        ({"path": "/db", "percent": 4}, ""),
        ({"path": "/db", "percent": 5}, "app1: /db (/db) has 4.0 GiB free and needs 5.0 GiB (5 % of it) for it"),
        ({"path": "/home", "bytes": 3 * GIB, "unless": "/home/there"}, ""),
        (
            {"path": "/home", "bytes": 3 * GIB, "unless": "/home/not"},
            "app1: /home (/) has 2.0 GiB free and needs 3.0 GiB for it",
        ),
        ({"path": "/gone", "bytes": 1}, "app1: nothing is known of the room at /gone"),
    ],
)
def test_room(need, problem):
    assert space.disk_problems(SPACE, "app1", [{**need, "why": "it"}]) == ([problem] if problem else [])


def test_one_disk_is_one_problem():
    needs = [{"path": path, "bytes": 3 * GIB, "why": "it"} for path in ("/home", "/srv", "/db")]
    assert [line.split()[1] for line in space.disk_problems(SPACE, "app1", needs)] == ["/home"]
    assert len(space.disk_problems(SPACE, "app1", [{**need, "bytes": 9 * GIB} for need in needs])) == 2


@pytest.mark.parametrize(("count", "words"), [(5, "5 B"), (1536, "1.5 KiB"), (3 * GIB, "3.0 GiB"), (2**41, "2.0 TiB")])
def test_sizes(count, words):
    assert space.size(count) == words


def test_the_size_of_a_file(tmp_path):
    (tmp_path / "a").write_bytes(b"123")
    assert (file_bytes(str(tmp_path / "a")), file_bytes(str(tmp_path / "b"))) == (3, 0)


def test_hosts_that_answered_come_first():
    hostvars = {"a": {}, "b": {"ansible_facts": {"x": 1}}, "c": {"ansible_facts": {}}, "d": {"ansible_facts": {"x": 1}}}
    assert answered_first("abcd", hostvars) == ["b", "d", "a", "c"]
