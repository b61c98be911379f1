"""What somebody changed on the hosts and in variables outlives an upgrade that is told to go on.

Not part of `tests/run`: pytest tests/upgrade/long_local.py
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.lab.support import ROOT
from tests.lab.verbs import Site
from tests.upgrade.test_upgrade import source

EDITED = "/etc/nginx/nginx.conf"
EDIT = "# edited by hand"
LOCAL = """---
nginx_server_snippets:
  - name: lab
    content: |
      add_header X-Lab-Test survives always;
zulip_settings:
  MAX_FILE_UPLOAD_SIZE: 17
"""


@pytest.fixture
def changed(site: Site) -> Iterator[list[str]]:
    """The app hosts, with a file edited on each, and overrides in the inventory."""
    layer = ROOT / "inventories/lab/group_vars/all/90-local.yml"
    before = layer.read_text()
    hosts = site.in_group("app")
    for host in hosts:
        site.run(host, f"cp -a {EDITED} /root/before-edit && echo '{EDIT}' >> {EDITED}")
    layer.write_text(LOCAL)
    yield hosts
    layer.write_text(before)
    for host in hosts:
        site.run(host, f"cp -a /root/before-edit {EDITED}")
    # The overrides left the hosts with the inventory's own settings gone.
    done = site.play("site", "-e", "local_edits=overwrite")
    assert done.status == 0, done.text[-3000:]


def edited(site: Site, host: str, path: str = EDITED) -> bool:
    return site.run(host, f"grep -cxF '{EDIT}' {path} || true") == "1"


def test_an_upgrade_keeps_what_is_local(site: Site, releases: dict[str, Any], changed: list[str]) -> None:
    refused = site.play("upgrade", *source(releases, "code"))
    assert EDITED in refused.refusal, refused.text[-3000:]

    done = site.play("upgrade", *source(releases, "code"), "-e", "allow_drift=true", "-e", "local_edits=keep")
    assert done.status == 0, done.text[-6000:]
    assert site.version() == releases["code"]["version"]
    assert EDITED in done.text, "a kept edit is reported"
    # Not the API: its locations set headers of their own, and nginx then inherits none.
    answer = requests.get(f"{site.url}/login/", verify=site.ca_file, timeout=10)
    assert answer.headers["X-Lab-Test"] == "survives"
    for host in changed:
        assert edited(site, host), host
        assert "17" in site.run(host, "grep -rh MAX_FILE_UPLOAD_SIZE /etc/zulip/"), host

    done = site.play("upgrade", *source(releases, "expand"), "-e", "allow_drift=true", "-e", "local_edits=overwrite")
    assert done.status == 0, done.text[-6000:]
    answer = requests.get(f"{site.url}/login/", verify=site.ca_file, timeout=10)
    assert answer.headers["X-Lab-Test"] == "survives"
    for host in changed:
        assert not edited(site, host), host
        assert edited(site, host, f"$(ls -t /var/lib/zulip-ha/replaced{EDITED}.* | head -1)"), "the copy is kept"
