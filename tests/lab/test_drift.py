"""Nothing local is overwritten: a hand edit stops the run, `keep` and `overwrite` do as said, a variable survives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.support import ROOT, playbook

EDIT = "# edited by hand"


def marked(lab, node: str, path: str) -> bool:
    return bool(lab.run(node, f"grep -cF '{EDIT}' {path}", check=False).strip("0\n"))


@pytest.fixture
def node(lab) -> str:
    return lab.in_group("app")[0]


def converge(role: str, *arguments: str):
    return playbook(f"molecule/{role}/converge.yml", *arguments)


CASES = [
    ("nginx", "app", "/etc/nginx/nginx.conf", f"+{EDIT}"),
    # It holds passwords: which lines differ is shown, and no value.
    ("postgresql", "database", "/etc/patroni/config.yml", "+(hidden, "),
]


@pytest.mark.parametrize(("role", "group", "path", "shown"), CASES)
def test_a_hand_edit_stops_is_kept_or_overwritten(lab, role, group, path, shown):
    node = lab.in_group(group)[0]
    path = lab.run(node, f"ls {path}")
    lab.run(node, f"cp -a {path} /root/before-edit && echo '{EDIT}' >> {path}")
    try:
        stopped = converge(role)
        assert stopped.returncode != 0
        assert path in stopped.stdout
        assert "90-local.yml" in stopped.stdout
        assert shown in stopped.stdout
        assert marked(lab, node, path)

        listed = playbook("playbooks/drift.yml")
        assert path in listed.stdout
        assert marked(lab, node, path)

        kept = converge(role, "-e", "local_edits=keep")
        assert kept.returncode == 0, kept.stdout[-3000:]
        assert path in kept.stdout, "a kept edit is reported"
        assert marked(lab, node, path)

        replaced = converge(role, "-e", "local_edits=overwrite")
        assert replaced.returncode == 0, replaced.stdout[-3000:]
        assert not marked(lab, node, path)
        assert marked(lab, node, f"$(ls -t /var/lib/zulip-ha/replaced{path}.* | head -1)"), "the edited copy is kept"
    finally:
        if marked(lab, node, path):
            lab.run(node, f"cp -a /root/before-edit {path}")


@pytest.fixture
def local_layer() -> Iterator[Path]:
    path = ROOT / "inventories/lab/group_vars/all/90-local.yml"
    before = path.read_text(encoding="utf-8")
    yield path
    path.write_text(before, encoding="utf-8")


def test_a_change_in_the_local_layer_survives_every_run(lab, local_layer):
    node = lab.in_group("app")[0]
    local_layer.write_text(
        "---\nnginx_server_snippets:\n  - name: lab\n    content: |\n      add_header X-Lab-Test survives always;\n",
        encoding="utf-8",
    )
    for _ in range(2):
        done = converge("nginx")
        assert done.returncode == 0, done.stdout[-3000:]
        assert lab.run(node, "grep -rl X-Lab-Test /etc/nginx")
    assert "changed=0" in done.stdout
    local_layer.write_text("---\n", encoding="utf-8")
    assert converge("nginx").returncode == 0
    assert not lab.run(node, "grep -rl X-Lab-Test /etc/nginx", check=False)
