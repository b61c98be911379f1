"""What every host has."""

from __future__ import annotations

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
