"""Which layer of variables wins: each is set, in a scaffolded inventory, and taken away again from the top."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
BIN = Path(sys.executable).parent
HOST = "app1.example.com"


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    """An inventory outside of the repository, as `make inventory` makes it."""
    subprocess.run([ROOT / "tools/inventory", "production", tmp_path], check=True, capture_output=True)
    return tmp_path / "production"


def value(inventory: Path, name: str) -> object:
    """Return a variable of a host as Ansible sees it."""
    done = subprocess.run(
        [BIN / "ansible-inventory", "-i", inventory, "--host", HOST],
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout).get(name)


def test_the_higher_layer_wins(inventory: Path) -> None:
    shipped = yaml.safe_load((ROOT / "group_vars/all/site.yml").read_text())["site_name"]
    layers = [
        inventory / "group_vars/all/50-site.yml",
        inventory / "group_vars/all/80-secrets.yml",
        inventory / "group_vars/all/90-local.yml",
        inventory / f"host_vars/{HOST}.yml",
    ]
    for layer in layers:
        layer.parent.mkdir(exist_ok=True)
        layer.write_text(f"---\nsite_name: from-{layer.stem}\n")
    while layers:
        winner = layers.pop()
        assert value(inventory, "site_name") == f"from-{winner.stem}"
        winner.unlink()
    assert value(inventory, "site_name") == shipped


def test_scaffolding_twice_leaves_what_is_there(inventory: Path) -> None:
    (inventory / "group_vars/all/90-local.yml").write_text("---\nsite_name: mine\n")
    (inventory / "hosts.yml").write_text("all: {hosts: {one: {}}}\n")
    subprocess.run([ROOT / "tools/inventory", "production", inventory.parent], check=True, capture_output=True)
    assert "mine" in (inventory / "group_vars/all/90-local.yml").read_text()
    assert "one" in (inventory / "hosts.yml").read_text()


def test_nothing_lies_where_it_would_beat_the_inventory() -> None:
    assert not list(ROOT.glob("playbooks/**/group_vars"))
    plays = yaml.safe_load((ROOT / "site.yml").read_text())
    assert all("ansible.builtin.import_playbook" in play for play in plays)


@pytest.mark.parametrize("name", ["lab", "single", "staging", "production"])
def test_every_inventory_has_the_shipped_layer(name: str) -> None:
    layer = ROOT / f"inventories/{name}/group_vars/all/00-shipped"
    assert layer.is_symlink()
    assert layer.resolve() == ROOT / "group_vars/all"
