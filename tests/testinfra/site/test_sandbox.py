"""Every unit of our own is sandboxed (design: exposure of 2.5 at most)."""

from __future__ import annotations

testinfra_hosts = ["ansible://all"]


def test_no_unit_of_ours_is_exposed(host):
    with host.sudo():
        listed = host.check_output("systemctl list-unit-files 'zulip*.service' --no-legend --plain")
        units = [line.split()[0] for line in listed.splitlines() if "@" not in line]
        assert units
        exposed = {}
        for unit in units:
            said = host.check_output(f"systemd-analyze security --no-pager {unit}").splitlines()[-1]
            if float(said.split(":")[1].split()[0]) > 2.5:
                exposed[unit] = said
    assert not exposed
