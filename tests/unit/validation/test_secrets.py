"""Secrets are made once, added to what is there, and never shown or changed."""

from __future__ import annotations

import datetime
import os
import re
import shutil
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.vault import VaultLib, VaultSecret
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from plugin_utils.validation import secrets

from .conftest import PASSWORD, ROOT, Project

FILE = Path("80-secrets.yml")
SCHEMA: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "playbooks/vars/secrets_schema.yml").read_text())[
    "secrets_schema"
]
PATTERNS = {
    "password": r"[A-Za-z0-9]+",
    "hex32": r"[0-9a-f]{64}",
    "alnum64": r"[A-Za-z0-9]{64}",
    "django_key": r"[a-z0-9!@#$%^&*(\-_=+)]{50}",
    "uuid4": r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
    "erlang_cookie": r"[A-Z]{32}",
}


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    return secrets.make(SCHEMA, {}, "zulip-ha")


def test_each_kind_has_its_form(made: dict[str, str]) -> None:
    for name, entry in SCHEMA.items():
        if entry["kind"] in PATTERNS:
            assert re.fullmatch(PATTERNS[entry["kind"]], made[name]), name
    assert len(made["vault_keepalived_password"]) == 8
    assert len(made["vault_redis_password"]) == 32
    assert len(set(made.values())) == len(made)


def test_ca_certificate_belongs_to_its_key(made: dict[str, str]) -> None:
    certificate = x509.load_pem_x509_certificate(made["vault_pki_ca_certificate"].encode())
    key = serialization.load_pem_private_key(made["vault_pki_ca_key"].encode(), None)
    assert certificate.public_key() == key.public_key()
    certificate.verify_directly_issued_by(certificate)
    assert certificate.subject.rfc4514_string() == "CN=zulip-ha CA"
    left = certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    assert 3640 < left.days <= 3650


def test_second_half_is_derived_and_first_half_is_not(made: dict[str, str]) -> None:
    present = {name: value for name, value in made.items() if name != "vault_uploads_ssh_public_key"}
    assert secrets.make(SCHEMA, present, "zulip-ha") == {
        "vault_uploads_ssh_public_key": made["vault_uploads_ssh_public_key"]
    }
    present = {name: value for name, value in made.items() if name != "vault_pki_ca_key"}
    with pytest.raises(secrets.SecretsError, match="is there and its private key `vault_pki_ca_key` is not"):
        secrets.make(SCHEMA, present, "zulip-ha")
    present = {**made, "vault_pki_ca_key": "PRIVATE", "vault_pki_ca_certificate": ""}
    with pytest.raises(secrets.SecretsError) as error:
        secrets.make(SCHEMA, present, "zulip-ha")
    assert "PRIVATE" not in str(error.value)


def test_text_that_is_there_stays(made: dict[str, str]) -> None:
    text = "---\n# mine\nvault_redis_password:   'old'  # why\nvault_rabbitmq_password: ''\nmine: !vault |-\n  abc"
    new = {name: value for name, value in made.items() if name != "vault_redis_password"}
    result = secrets.compose(text, new, FILE)
    assert result.startswith("---\n# mine\nvault_redis_password:   'old'  # why\nvault_rabbitmq_password: '")
    assert secrets.parse(result, FILE) == {"vault_redis_password": "old", "mine": "!vault abc", **new}


@pytest.mark.parametrize("text", ["{a: 1}\n", "a: 1\n...\n", 'a: "\n', "- a\n", "just text\n"])
def test_text_that_cannot_be_extended_is_refused(text: str) -> None:
    with pytest.raises(secrets.SecretsError) as error:
        secrets.compose(text, {"b": "2"}, FILE)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "\n", "a: 1", "a: |\n  x\n ", "a: &x ''\n", "# only a comment\n", "---\n"])
def test_text_that_can_be_extended(text: str) -> None:
    result = secrets.compose(text, {"b": "it's", "c": "two\nlines\n"}, FILE)
    assert secrets.parse(result, FILE) == {**secrets.parse(text, FILE), "b": "it's", "c": "two\nlines\n"}


def test_another_value_keeps_the_old_line_as_a_comment() -> None:
    text = "---\n# mine\nvault_b: 'old'  # why\nvault_a: \"x\"\nvault_c: ''\nvault_pem: |\n  one\n  two\n"
    given = {"vault_b": "it's", "vault_c": "c", "vault_d": "d", "vault_a": "x"}
    result = secrets.revise(text, given, FILE, "replaced")
    assert result.startswith("---\n# mine\n# replaced: vault_b: 'old'  # why\nvault_b: 'it''s'\nvault_a: \"x\"\n")
    assert secrets.parse(result, FILE) == {**secrets.parse(text, FILE), **given}
    # Again, it changes nothing.
    assert secrets.revise(result, given, FILE, "replaced") == result
    assert secrets.revise("", {"vault_a": "1"}, FILE, "x") == secrets.HEADER + "vault_a: '1'\n"


@pytest.mark.parametrize(
    "text",
    [
        "vault_a: |\n  old\n",
        "vault_a:\n  old\n",
        "{vault_a: old}\n",
        "vault_a: 'old\n  more'\n",
        "x: |\n  vault_a: y\n",
    ],
)
def test_a_value_of_several_lines_is_not_replaced(text: str) -> None:
    if text.startswith("x"):
        assert secrets.parse(secrets.revise(text, {"vault_a": "new"}, FILE, "x"), FILE)["vault_a"] == "new"
        return
    with pytest.raises(secrets.SecretsError) as error:
        secrets.revise(text, {"vault_a": "new"}, FILE, "x")
    assert "\n" not in str(error.value)
    assert "old" not in str(error.value)


def test_replace_is_private_and_leaves_nothing_behind(tmp_path: Path) -> None:
    file = tmp_path / "80-secrets.yml"
    (tmp_path / ".80-secrets.yml.new").write_text("of a killed run")
    secrets.replace(file, b"one")
    secrets.replace(file, b"two")
    assert file.read_bytes() == b"two"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["80-secrets.yml"]


def test_replace_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError("no space left on device")

    file = tmp_path / "80-secrets.yml"
    file.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        secrets.replace(file, b"new")
    assert file.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["80-secrets.yml"]


def _plain(project: Project) -> str:
    content = project.secrets_file.read_bytes()
    assert content.startswith(b"$ANSIBLE_VAULT;1.1;AES256\n")
    return VaultLib([("default", VaultSecret(PASSWORD.encode()))]).decrypt(content).decode()


def test_playbook_fills_only_what_is_missing(empty_project: Project) -> None:
    project = empty_project
    predicted = project.run("playbooks/secrets.yml", "--check")
    assert predicted.code == 0, predicted.text
    assert "vault_redis_password" in predicted.text
    assert not project.secrets_file.exists()

    vault = VaultLib([("default", VaultSecret(PASSWORD.encode()))])
    project.secrets_file.write_bytes(vault.encrypt("# mine\nvault_redis_password: kept\n"))
    filled = project.run("playbooks/secrets.yml", "-vvv", "--diff")
    assert filled.code == 0, filled.text
    text = _plain(project)
    values = yaml.safe_load(text)
    assert text.startswith("# mine\nvault_redis_password: kept\n")
    assert set(secrets.missing(SCHEMA, {})) <= set(values)
    assert not [name for name, value in values.items() if value != "kept" and value.strip() in filled.text]

    content = project.secrets_file.read_bytes()
    again = project.run("playbooks/secrets.yml")
    assert "changed=0" in again.text
    assert project.secrets_file.read_bytes() == content


def test_module_replaces_what_it_is_given_alone(empty_project: Project) -> None:
    project = empty_project
    vault = VaultLib([("default", VaultSecret(PASSWORD.encode()))])
    project.secrets_file.parent.mkdir(parents=True, exist_ok=True)
    project.secrets_file.write_bytes(
        vault.encrypt("# mine\nvault_redis_password: kept\nvault_zulip_avatar_salt: ours\n")
    )
    book = project.root / "playbooks/replace.yml"
    task = {"fill_secrets": {"schema": {}, "site_name": "x", "replace": {"vault_zulip_avatar_salt": "CANARY-4711"}}}
    book.write_text(yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "tasks": [task]}]))
    done = project.run("playbooks/replace.yml", "-vvv", "--diff")
    assert done.code == 0, done.text
    assert "CANARY-4711" not in done.text
    assert "vault_zulip_avatar_salt" in done.text
    text = _plain(project)
    assert text.startswith("# mine\nvault_redis_password: kept\n# replaced on 20")
    assert text.endswith(": vault_zulip_avatar_salt: ours\nvault_zulip_avatar_salt: 'CANARY-4711'\n")
    content = project.secrets_file.read_bytes()
    assert "changed=0" in project.run("playbooks/replace.yml").text
    assert project.secrets_file.read_bytes() == content


def test_plain_file_is_refused(empty_project: Project) -> None:
    empty_project.secrets_file.write_text("vault_redis_password: x\n")
    outcome = empty_project.run("playbooks/secrets.yml")
    assert outcome.code != 0
    assert f"is not encrypted; run ansible-vault encrypt {empty_project.secrets_file}" in outcome.text
    assert empty_project.secrets_file.read_text() == "vault_redis_password: x\n"


def test_lab_password_does_not_protect_another_inventory(empty_project: Project) -> None:
    empty_project.environment["ANSIBLE_VAULT_PASSWORD_FILE"] = str(empty_project.root / "lab/vault-password")
    outcome = empty_project.run("playbooks/secrets.yml")
    assert outcome.code != 0
    assert "no vault password but the lab's own was given" in outcome.text
    assert not empty_project.secrets_file.exists()


def test_lab_password_is_made_once(tmp_path: Path) -> None:
    program = tmp_path / "vault-password"
    shutil.copy2(ROOT / "lab" / "vault-password", program)

    def call(_index: int) -> str:
        return subprocess.run([program], stdout=subprocess.PIPE, text=True, check=True).stdout

    with ThreadPoolExecutor(8) as pool:
        passwords = set(pool.map(call, range(8)))
    assert len(passwords) == 1
    assert re.fullmatch(r"[0-9a-f]{64}\n", passwords.pop())
    state = tmp_path / ".state"
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert os.listdir(state) == ["vault-password"]
    assert stat.S_IMODE((state / "vault-password").stat().st_mode) == 0o600
