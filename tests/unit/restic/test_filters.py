"""Settings that cannot work, and an inventory that is not sent with secrets in plain text."""

from __future__ import annotations

import base64
import io
import tarfile
from typing import Any

import pytest

from filter_plugins import restic

GOOD: dict[str, Any] = {
    "repository": "rest:https://back_up.1:8433/",
    "password": True,
    "server": True,
    "directory": "/var/lib/restic",
    "paths": ["/etc"],
    "uploads": "local",
    "uploads_directory": "/home/zulip/uploads",
    "uploads_command": [],
    "buckets": ["", ""],
}
VAULT = "$ANSIBLE_VAULT;1.1;AES256\n6162\n"


@pytest.mark.parametrize(
    "repository", ["rest:https://[fd00::1]:8433/", "s3:https://s3.example.com/bucket/restic", "s3:s3.amazonaws.com/b"]
)
def test_what_can_work(repository):
    assert restic.restic_problem(GOOD | {"repository": repository}) == ""


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"repository": "/var/x"}, "neither rest"),
        ({"repository": "rest:http://a/"}, "neither rest"),
        ({"password": False}, "vault_restic_password"),
        ({"directory": "/var/lib/"}, "no directory of its own"),
        ({"directory": "/home/x"}, "hidden from the server"),
        ({"paths": []}, "is empty"),
        ({"paths": ["etc"]}, "no absolute path"),
        ({"uploads": "tape"}, "none of"),
        ({"uploads": "s3", "uploads_command": ["x"]}, "both buckets"),
        ({"uploads": "s3", "buckets": ["a", "b"]}, "no command python"),
    ],
)
def test_what_cannot(change, told):
    line = restic.restic_problem(GOOD | change)
    assert told in line
    assert "\n" not in line


def test_what_is_expected():
    found = restic.restic_expected(["b", "a"], 50, 4)
    assert [(item["tag"], item["host"]) for item in found] == [
        ("configuration", "a"),
        ("configuration", "b"),
        ("uploads", ""),
    ]


@pytest.fixture
def inventory(tmp_path):
    folder = tmp_path / "site/group_vars/all"
    folder.mkdir(parents=True)
    (tmp_path / "site/hosts.yml").write_text("all: {}\n")
    (folder / "80-secrets.yml").write_text(VAULT)
    (folder / "50-site.yml").write_text('x: "{{ vault_x }}"\nvault_y: !vault |\n  $ANSIBLE_VAULT;1.1\nvault_z: ""\n')
    (folder / "00-shipped").symlink_to(tmp_path)
    (tmp_path / "site/.git").mkdir()
    (tmp_path / "site/.git/config").write_text("vault_a: plain\n")
    return tmp_path / "site"


def test_an_inventory_becomes_a_tar_that_is_always_the_same(inventory):
    text = restic.inventory_archive(str(inventory))
    assert text == restic.inventory_archive(str(inventory))
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(text))) as archive:
        assert sorted(archive.getnames()) == [
            "group_vars/all/00-shipped",
            "group_vars/all/50-site.yml",
            "group_vars/all/80-secrets.yml",
            "hosts.yml",
        ]
        assert archive.getmember("group_vars/all/00-shipped").issym()


@pytest.mark.parametrize(
    "text",
    [
        "vault_pki: word\n",
        "  vault_x: |\n    abc\n",
        '"vault_x": "a"\n',
        "-----BEGIN EC PRIVATE KEY-----\n",
        "vault_a=b\n",
    ],
)
def test_secrets_in_plain_text_are_refused_in_one_line(inventory, text):
    (inventory / "group_vars/all/80-secrets.yml").write_text(text)
    line = restic.inventory_problem(str(inventory))
    assert "in plain text" in line
    assert "\n" not in line
    assert "word" not in line
    with pytest.raises(restic.AnsibleFilterError):
        restic.inventory_archive(str(inventory))


def test_the_vault_password_stays_here(inventory, monkeypatch):
    (inventory / "password").write_text("x")
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", str(inventory / "password"))
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(restic.inventory_archive(str(inventory))))) as archive:
        assert "password" not in archive.getnames()


@pytest.mark.parametrize("directory", ["", "/nonexistent"])
def test_no_inventory_is_told(directory):
    assert "is no directory" in restic.inventory_problem(directory)


def test_the_summary_names_every_host():
    hostvars = {
        "a": {"backup_restic": {"ok": True, "line": "configuration 3 files", "problems": {}}},
        "b": {"backup_restic": {"ok": False, "line": "", "problems": {"uploads": "/x is missing"}}},
        "c": {},
    }
    table = restic.backup_files_table(hostvars, hostvars)
    assert [line.split()[1] for line in table[1:]] == ["saved", "FAILED", "none"]
    assert restic.backup_files_problem(hostvars, hostvars).endswith("b: /x is missing | c does not answer")
    assert restic.backup_files_problem(["a"], hostvars) == ""
