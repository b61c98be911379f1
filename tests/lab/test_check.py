"""A dry run of the whole converged site: it passes, predicts no change, and shows no secret."""

from __future__ import annotations

import re
import sys

from tests.lab.support import command, playbook


def test_check_and_diff_on_converged_nodes(tmp_path):
    done = playbook("site.yml", "--check", "--diff", "-v")
    assert done.returncode == 0, done.stdout[-3000:]
    recap = re.findall(r"^(\S+) +: ok=(\d+) +changed=(\d+)", done.stdout, re.MULTILINE)
    assert len(recap) >= 5
    assert {host: changed for host, _, changed in recap if changed != "0"} == {}
    log = tmp_path / "check.log"
    log.write_text(done.stdout)
    leaks = command(sys.executable, "tests/leaks.py", "inventories/lab", str(log))
    assert leaks.returncode == 0, leaks.stdout
