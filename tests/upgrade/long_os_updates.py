"""Debian updates of everything that carries the site, one host after the other, under load.

Debian's mirrors seldom have an update of PostgreSQL, RabbitMQ and OpenSSL on the same day, so each node gets a
repository of its own: the packages that it has, with a higher version.

Not part of `tests/run`: pytest tests/upgrade/long_os_updates.py
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from tests.lab.verbs import Site

SOURCES = (
    "etcd", "haproxy", "keepalived", "memcached", "nginx", "openssl", "patroni", "pgbouncer", "postgresql-15",
    "postgresql-17", "rabbitmq-server", "redis",
)  # fmt: skip
"""Debian's names of the source packages: all that is installed of them is updated."""

REPOSITORY = r"""
set -eu
rm -rf /srv/updates && mkdir -p /srv/updates && cd /srv/updates
# As Debian has them, also where an earlier run of this has raised the version; held ones too.
dpkg-query -W -f '${db:Status-Abbrev} ${source:Package} ${binary:Package} ${Version}\n' |
    sed 's/+lab[0-9]*$//' |
    awk -v wanted=' SOURCES ' '$1 ~ /^[hi]i$/ && index(wanted, " " $2 " ") {print $3, $4}' > /tmp/updates
apt-get -qq update
apt-get -qq download $(sed 's/ /=/' /tmp/updates)
for file in *.deb; do
    dpkg-deb -R "$file" tree
    sed -i '/^Version: /s/$/MARK/' tree/DEBIAN/control
    # What stands for exactly the older version of another one of these.
    while read -r name version; do
        sed -i "/Depends: /s/\b${name%%:*} (= ${version})/${name%%:*} (= ${version}MARK)/g" tree/DEBIAN/control
    done < /tmp/updates
    rm "$file"
    dpkg-deb --root-owner-group -Znone -b tree "$file" > /dev/null
    rm -r tree
    { dpkg-deb -f "$file"; echo "Filename: ./$file"; echo "Size: $(stat -c %s "$file")"
      echo "SHA256: $(sha256sum "$file" | cut -d ' ' -f 1)"; echo; } >> Packages
done
echo 'deb [trusted=yes] file:/srv/updates ./' > /etc/apt/sources.list.d/updates.list
wc -l < /tmp/updates
"""
OF_THE_LAB = "rm -rf /srv/updates /etc/apt/sources.list.d/updates.list && apt-get -qq update"


@pytest.fixture
def updates(site: Site) -> Iterator[str]:
    """Updates on each node; what their versions end with."""
    mark = f"+lab{int(time.time())}"
    script = REPOSITORY.replace("SOURCES", " ".join(SOURCES)).replace("MARK", mark)
    for node in site.state["nodes"]:
        assert int(site.run(node, f"{script}").splitlines()[-1]) > 2, node
    yield mark
    for node in site.state["nodes"]:
        site.run(node, OF_THE_LAB)


def test_updates_of_all_hosts_fail_no_request(site: Site, updates: str) -> None:
    with site.load("os_updates") as load:
        load.mark("os_updates")
        done = site.play("os_updates")
        load.mark("end")
        assert done.status == 0, done.text[-6000:]
    for node in site.state["nodes"]:
        plan = json.loads(site.run(node, "/usr/local/lib/zulip-ha/host_packages plan"))
        assert not plan["upgradable"], plan
        assert not plan["restart"], f"{node} still runs what was replaced: {plan['restart']}"
        assert updates in site.run(node, "dpkg-query -W -f '${Version}' openssl")
    assert len(site.active()) == 1
    verdict = load.check("--max-failed", "0", "--max-gap", "5")
    assert verdict.returncode == 0, verdict.stdout + verdict.stderr
    # Nor did a package touch a file of the roles.
    again = site.play("site")
    assert again.status == 0, again.text[-3000:]
    assert not any(again.changed().values()), again.changed()
