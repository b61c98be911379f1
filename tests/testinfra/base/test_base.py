"""What every host has."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatchcase

testinfra_hosts = ["ansible://all"]


def test_packages_of_the_groups_are_installed(host):
    for name in ("nftables", "openssl", "rsync", "zstd"):
        assert host.package(name).is_installed, name


def test_no_unit_has_failed(host):
    assert host.check_output("systemctl list-units --failed --plain --no-legend") == ""


def test_the_journal_is_kept_and_bounded(host):
    host.run_expect([0], "grep -q '^Storage=persistent' /etc/systemd/journald.conf.d/50-zulip-ha.conf")
    host.run_expect([0], "grep -q '^SystemMaxUse=' /etc/systemd/journald.conf.d/50-zulip-ha.conf")
    assert host.file("/var/log/journal").is_directory


def test_debian_made_no_cluster_of_its_own(host):
    assert (
        "create_main_cluster = false"
        in host.file("/etc/postgresql-common/createcluster.d/zulip-ha.conf").content_string
    )
    clusters = host.run("pg_lsclusters --no-header 2>/dev/null").stdout.splitlines()
    assert len(clusters) <= 1


def test_the_hosts_name_is_the_inventorys(host):
    assert host.check_output("hostname") == host.backend.get_hostname()


def test_sudoers_are_valid(host):
    host.run_expect([0], "visudo -cf /etc/sudoers")


def test_ledgers_are_private(host):
    ledger = host.file("/var/lib/zulip-ha/managed")
    assert (ledger.user, ledger.mode) == ("root", 0o700)


def test_packages_of_stateful_services_are_on_hold(host):
    patterns = [
        line
        for line in host.file("/etc/zulip-ha/held-packages").content_string.splitlines()
        if line and not line.startswith("#")
    ]
    text = host.check_output("dpkg-query --show --showformat='${db:Status-Want} ${db:Status-Status} ${Package}\\n'")
    rows = [line.split() for line in text.splitlines()]
    wanted = [row for row in rows if row[1] == "installed" and any(fnmatchcase(row[2], one) for one in patterns)]
    assert [row for row in wanted if row[0] != "hold"] == []
    assert bool(wanted) == bool(patterns)
    assert host.service("zulip-ha-holds.service").is_running
    assert host.service("zulip-ha-holds.service").is_enabled


def test_an_upgrade_by_hand_passes_the_held_packages_over(host):
    held = host.check_output("apt-mark showhold").split()
    said = host.check_output("apt-get --simulate dist-upgrade")
    touched = {line.split()[1] for line in said.splitlines() if line.startswith(("Inst ", "Remv "))}
    assert touched & set(held) == set()


def test_what_comes_by_itself_is_no_held_package_and_no_reboot(host):
    said = host.check_output("apt-config dump Unattended-Upgrade")
    assert 'Automatic-Reboot "false"' in said
    assert "Origins-Pattern::" in said
    refused = [line.split('"')[1] for line in said.splitlines() if "Package-Blacklist::" in line]
    # Those that this repository holds; an administrator may hold more.
    held = [name.split(":")[0] for name in json.loads(host.file("/var/lib/zulip-ha/held.json").content_string)]
    assert [name for name in held if not any(re.match(pattern, name) for pattern in refused)] == []


def test_drift_is_reported_each_day(host):
    assert host.service("zulip-ha-drift.timer").is_running
    host.check_output("systemctl start zulip-ha-drift.service")
    written = json.loads(host.file("/var/lib/zulip-ha/drift.json").content_string)
    assert written["error"] == ""
    assert written["files"] > 10
