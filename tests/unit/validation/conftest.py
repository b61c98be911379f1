"""A small repository of its own, so that these tests stand on the plugins alone and not on what the roles contain."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
PASSWORD = "the site's password"

CONFIG = """\
[defaults]
action_plugins = action_plugins
filter_plugins = filter_plugins
connection_plugins = connection_plugins
library = library
vars_plugins = vars_plugins
vars_plugins_enabled = site_vault,host_group_vars
callback_result_format = yaml
inject_facts_as_vars = False
duplicate_dict_key = error
"""

# Stands for ssh: writes down that a host was contacted, then does what `local` does.
CONNECTION = '''\
DOCUMENTATION = """
name: logged
short_description: local, with a log
description: Writes each use to a file.
options: {}
"""
import os

from ansible.plugins.connection.local import Connection as Local


class Connection(Local):
    transport = "logged"

    def exec_command(self, *args, **kwargs):
        with open(os.environ["CONTACT_LOG"], "a") as stream:
            stream.write("contact\\n")
        return super().exec_command(*args, **kwargs)
'''

# Stands for the facts of the hosts.
SETUP = """\
import os

from ansible.module_utils.basic import AnsibleModule

module = AnsibleModule(argument_spec={"gather_subset": {"type": "list"}}, supports_check_mode=True)
name, version = os.environ.get("FACTS_DISTRIBUTION", "Debian 13").split()
module.exit_json(ansible_facts={
    "ansible_distribution": name,
    "ansible_distribution_version": version,
    "ansible_distribution_major_version": version.split(".")[0],
    "ansible_distribution_release": {"12": "bookworm"}.get(version, "trixie"),
    "ansible_architecture": "x86_64",
})
"""

SITE = """\
- ansible.builtin.import_playbook: playbooks/prechecks.yml
- ansible.builtin.import_playbook: playbooks/change.yml
"""
CHANGE = """\
- hosts: all
  gather_facts: false
  tasks:
    - name: Change something
      ansible.builtin.command: "true"
"""
SPECS = {
    "argument_specs": {
        "main": {
            "options": {
                "redis_port": {"type": "int", "default": 6379},
                "redis_enabled": {"type": "bool", "default": True},
                "redis_settings": {"type": "dict", "default": {}},
                "redis_password": {"type": "str", "required": True},
            }
        }
    }
}
HOSTS: dict[str, Any] = {
    "all": {
        "vars": {"ansible_connection": "logged", "ansible_python_interpreter": sys.executable},
        "children": {
            "app": {"hosts": {"app1": {"ansible_host": "192.0.2.11"}, "app2": {"ansible_host": "192.0.2.12"}}},
            "database": {"hosts": {"db1": {"ansible_host": "192.0.2.21"}, "db2": {"ansible_host": "192.0.2.22"}}},
            "quorum": {"hosts": {"db1": {}, "db2": {}, "mon1": {"ansible_host": "192.0.2.31"}}},
            "backup": {"hosts": {"mon1": {}}},
            "monitor": {"hosts": {"mon1": {}}},
        },
    }
}
VALUES: dict[str, Any] = {
    "site_hostname": "chat.example.com",
    "site_administrator": "admin@example.com",
    "site_network": "192.0.2.0/24",
    "site_virtual_ip": "192.0.2.100",
    "release_artifact": "artifacts/release.tar.gz",
}


@dataclass
class Outcome:
    """What a run of ansible-playbook ended with."""

    code: int
    text: str
    contacted: bool

    @property
    def problems(self) -> list[str]:
        """The error lines, without Ansible's own about the failed task."""
        lines = [line.removeprefix("[ERROR]: ") for line in self.text.splitlines() if line.startswith("[ERROR]: ")]
        return [line for line in lines if not (line.startswith("Task failed") and "see above" in line)]


@dataclass
class Project:
    """A copy of the plugins and prechecks with one role, and a right inventory outside of it."""

    root: Path
    inventory: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def secrets_file(self) -> Path:
        """The inventory's vault."""
        return self.inventory / "group_vars" / "all" / "80-secrets.yml"

    def hosts(self, data: dict[str, Any]) -> None:
        """Write the inventory's hosts."""
        (self.inventory / "hosts.yml").write_text(yaml.safe_dump(data, sort_keys=False))

    def local(self, text: str) -> None:
        """Write the operator's overrides."""
        (self.inventory / "group_vars" / "all" / "90-local.yml").write_text(text)

    def run(self, playbook: str = "site.yml", *arguments: str, **environment: str) -> Outcome:
        """Run the real ansible-playbook."""
        log = self.root / "contacts"
        log.unlink(missing_ok=True)
        command = [
            str(Path(sys.executable).parent / "ansible-playbook"),
            "-i",
            str(self.inventory),
            playbook,
            *arguments,
        ]
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "MOLECULE_"))}
        process = subprocess.run(
            command,
            cwd=self.root,
            env=clean
            | {"CONTACT_LOG": str(log), "ANSIBLE_NOCOLOR": "1", "ANSIBLE_HOME": str(self.root / ".ansible")}
            | self.environment
            | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=120,
        )
        return Outcome(process.returncode, process.stdout, log.exists())


def project_release(root: Path, **changes: Any) -> None:
    """Write the summary of the artefact."""
    manifest = {"id": "x", "profile": "zulip", "version": "11.2", "codename": "trixie", "architecture": "x86_64"}
    entry = {"artifact": "release.tar.gz", "sha256": "", "manifest": manifest | changes}
    (root / "artifacts/release.tar.gz.json").write_text(json.dumps(entry))


def _build(root: Path, inventory: Path) -> Project:
    """Lay out the project and its inventory, without secrets."""
    for name in ("plugin_utils", "vars_plugins", "filter_plugins"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (
        "action_plugins/validate_site.py",
        "action_plugins/fill_secrets.py",
        "playbooks/prechecks.yml",
        "playbooks/secrets.yml",
        "playbooks/vars/secrets_schema.yml",
        "playbooks/vars/renamed_variables.yml",
        "playbooks/profiles/zulip.yml",
        "group_vars/argument_specs.yml",
        "group_vars/all/release.yml",
        "lab/vault-password",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, root / name)
    files = {
        "ansible.cfg": CONFIG,
        "site.yml": SITE,
        "playbooks/change.yml": CHANGE,
        "connection_plugins/logged.py": CONNECTION,
        "library/setup.py": SETUP,
        "roles/redis/defaults/main.yml": "redis_port: 6379\nredis_enabled: true\nredis_settings: {}\n",
        "roles/redis/vars/main.yml": "__redis_unit: redis-server.service\n",
        "roles/redis/meta/argument_specs.yml": yaml.safe_dump(SPECS),
        "group_vars/all/site.yml": 'site_address: "{{ ansible_host }}"\napp_profile: zulip\nedge_mode: vrrp\n'
        'local_edits: stop\nredis_password: "{{ vault_redis_password }}"\nrelease_artifact_sha256: ""\n'
        "app_options: []\napp_programs: {}\napp_queues: []\napp_tornado_shards: 1\napp_tornado_hosts: {}\n"
        "uploads_backend: local\nuploads_s3_bucket: ''\nuploads_s3_avatar_bucket: chat-avatars\n"
        "uploads_s3_endpoint: ''\n"
        "zulip_settings: {}\nsite_postgresql_versions: {bookworm: 15, trixie: 17}\n",
        "artifacts/release.tar.gz": "a release\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    project_release(root)
    digest = hashlib.sha256(b"a release\n").hexdigest()
    (root / "artifacts/release.tar.gz.sha256").write_text(f"{digest}  release.tar.gz\n")

    variables = inventory / "group_vars" / "all"
    variables.mkdir(parents=True)
    (variables / "00-shipped").symlink_to(root / "group_vars" / "all")
    (variables / "50-site.yml").write_text(yaml.safe_dump(VALUES, sort_keys=False))
    (inventory.parent / "password").write_text(PASSWORD)
    project = Project(root, inventory, {"ANSIBLE_VAULT_PASSWORD_FILE": str(inventory.parent / "password")})
    project.hosts(HOSTS)
    return project


@pytest.fixture
def empty_project(tmp_path: Path) -> Project:
    """A right inventory that has no secrets yet."""
    return _build(tmp_path / "repository", tmp_path / "site")


@pytest.fixture(scope="session")
def _secrets(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A secrets file as the playbook makes it, made once."""
    path = tmp_path_factory.mktemp("secrets")
    project = _build(path / "repository", path / "site")
    outcome = project.run("playbooks/secrets.yml")
    assert outcome.code == 0, outcome.text
    return project.secrets_file.read_bytes()


@pytest.fixture
def project(empty_project: Project, _secrets: bytes) -> Project:
    """A right inventory with all its secrets."""
    empty_project.secrets_file.write_bytes(_secrets)
    return empty_project
