"""A second run restarts nothing: every service that ran before it is the same process since the same moment."""

from __future__ import annotations

import pytest

testinfra_hosts = ["ansible://all"]

RECORD = "/run/zulip-ha-start-times"
# Oneshots and timers' services come and go by themselves; what counts is what the product keeps running.
COMES_AND_GOES = (
    "apt-",
    "dpkg-",
    "e2scrub",
    "fstrim",
    "logrotate",
    "man-db",
    "session",
    "systemd-",
    "user-runtime",
    "user@",
    "zulip-cron-",
    "zulip-ha-etcd-leader",
)


def parse(text: str) -> dict[str, dict[str, str]]:
    blocks = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in text.split("\n\n")]
    return {block["Id"]: block for block in blocks if "Id" in block}


def test_no_service_was_restarted_by_the_second_run(host):
    record = host.file(RECORD)
    if not record.exists:
        pytest.skip("no second run was made (only the scenario site makes one)")
    before = parse(record.content_string)
    assert len(before) >= 5, "nothing was recorded"
    now = parse(host.check_output("systemctl show --property=Id,ActiveEnterTimestamp,MainPID " + " ".join(before)))
    moved = {
        name: (unit["ActiveEnterTimestamp"], now[name]["ActiveEnterTimestamp"])
        for name, unit in before.items()
        if not name.startswith(COMES_AND_GOES)
        and (unit["ActiveEnterTimestamp"], unit["MainPID"]) != (now[name]["ActiveEnterTimestamp"], now[name]["MainPID"])
    }
    assert not moved, f"restarted: {moved}"
