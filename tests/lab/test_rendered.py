"""The configuration of each release of Zulip, read by the programs that it is for."""

from __future__ import annotations

import configparser
import json
from typing import Any

import pytest

from tests.lab.support import Lab, playbook

RELEASES = ["9.4", "10.4", "11.5", "12.4"]
TUSD = {"10.4", "11.5", "12.4"}
SHARDS = {"9.4": [9800, 9801], "10.4": [9800], "11.5": [9800, 9801, 9802], "12.4": [9800, 9801]}

# In a mount namespace of its own, /etc is that of the release, and the programs that the units name are there.
INSIDE = """
set -e
root=/run/rendered/{release}
cp -an /etc/nginx/. $root/etc/nginx/
mkdir -p $root/etc/nginx/local.d/http $root/etc/nginx/local.d/server $root/stub/{link}/bin
for program in python uwsgi; do ln -sf /bin/true $root/stub/{link}/bin/$program; done
for program in tusd go-camo smokescreen; do
    mkdir -p $root/programs/$program-abababababab
    ln -sf /bin/true $root/programs/$program-abababababab/$program
done
[ -e /usr/bin/node ] || ln -s /bin/true /usr/bin/node
uwsgi=$(readlink -f /home/zulip/deployments/current/.venv/bin)/uwsgi
export uwsgi root
mkdir -p /usr/local/lib/zulip-ha/programs
unshare --mount sh -ec '
    for folder in nginx zulip systemd/system; do mount --bind $root/etc/$folder /etc/$folder; done
    mount --bind $root/programs /usr/local/lib/zulip-ha/programs
    mount -t tmpfs none /home/zulip
    mkdir -p /home/zulip/deployments/current
    mount --bind $root/stub /home/zulip/deployments/current
    {check}
'
"""


# Told to be strict, it ends at the first option that it does not know; told not to serve, it ends after the last.
UWSGI = "cd /; timeout 20 $uwsgi --strict --no-server --virtualenv= --ini /etc/zulip/uwsgi.ini 2>&1 || true"


@pytest.fixture(scope="module")
def lab() -> Lab:
    """The lab, with every release's configuration rendered on its first app host."""
    done = playbook("tests/rendered/render.yml")
    assert done.returncode == 0, done.stdout[-3000:]
    return Lab()


def inside(lab: Lab, release: str, check: str) -> str:
    """Run a check where the release's configuration is the host's."""
    link = "zulip-py3-venv" if release.startswith("9") else ".venv"
    script = INSIDE.replace("{release}", release).replace("{link}", link).replace("{check}", check)
    return lab.run(lab.in_group("app")[0], script)


def read(lab: Lab, release: str, path: str) -> str:
    """Return a file of the release's configuration."""
    return lab.run(lab.in_group("app")[0], f"cat /run/rendered/{release}{path}")


@pytest.mark.parametrize("release", RELEASES)
def test_nginx_reads_it(lab: Lab, release: str) -> None:
    inside(lab, release, "nginx -t 2>&1 || exit 1")
    locations = read(lab, release, "/etc/nginx/zulip-ha/locations.conf")
    assert ("location /api/v1/tus" in locations) is (release in TUSD)
    assert ("location /help/" in locations) is (release == "12.4")
    assert ("location ~ ^/internal/s3/" in locations) is (release == "11.5")
    assert ("proxy_pass https://$s3_hostname:9000/" in locations) is (release == "11.5")


@pytest.mark.parametrize("release", RELEASES)
def test_systemd_reads_every_unit(lab: Lab, release: str) -> None:
    units = f"/run/rendered/{release}/etc/systemd/system"
    node = lab.in_group("app")[0]
    wanted = lab.run(node, f"grep -h ^Wants=zulip {units}/zulip*.target.d/*.conf | cut -d= -f2").split()
    assert len(wanted) > 20
    text = inside(
        lab,
        release,
        f"systemd-analyze verify --man=no --recursive-errors=yes {' '.join(wanted)} 2>&1 | grep zulip- || true",
    )
    assert text == ""
    # The system's store of certificates is Zulip's, for an S3 server that a CA of the operator's signed.
    trusting = lab.run(
        node, f"cd {units}; grep -l ^Environment=.AWS_CA_BUNDLE= zulip-django.service zulip-tornado@.service"
    )
    assert trusting.split() == ["zulip-django.service", "zulip-tornado@.service"]


def read_settings(lab: Lab, release: str, environment: str = "") -> dict[str, Any]:
    """Return what the release's settings file sets."""
    text = inside(
        lab,
        release,
        f'python3 -m py_compile /etc/zulip/settings.py; cd /; {environment} python3 -c "import json, runpy; '
        'names = runpy.run_path(\\"/etc/zulip/settings.py\\"); '
        'print(json.dumps({name: value for name, value in names.items() if name.isupper()}, default=str))"',
    )
    return json.loads(text)


@pytest.mark.parametrize("release", RELEASES)
def test_python_reads_the_settings(lab: Lab, release: str) -> None:
    settings = read_settings(lab, release)
    assert settings["EXTERNAL_HOST"] == "chat.zulip-ha.test"
    assert settings["TEST_EXPRESSION"] == "1 day, 0:00:00"
    assert settings["TEST_NUMBER"] == 5
    assert settings["AUTHENTICATION_BACKENDS"] == ["zproject.backends.EmailAuthBackend"]
    assert ("LOCAL_UPLOADS_DIR" in settings) is (release != "11.5")
    assert settings["CAMO_URI"] == ("" if release == "11.5" else "/external_content/")


@pytest.mark.parametrize("release", RELEASES)
def test_a_command_is_led_to_a_restored_copy(lab: Lab, release: str) -> None:
    live = read_settings(lab, release, "ZULIP_HA_DATABASE=direct")
    copy = read_settings(lab, release, "ZULIP_HA_DATABASE_HOST=192.0.2.9 ZULIP_HA_DATABASE_PORT=5433")
    names = ["REMOTE_POSTGRES_HOST", "REMOTE_POSTGRES_PORT", "REMOTE_POSTGRES_SSLMODE"]
    assert [live[name] for name in names] == ["127.0.0.1", "5000", "verify-full"]
    assert [copy[name] for name in names] == ["192.0.2.9", "5433", "verify-full"]
    assert copy["MEMCACHED_LOCATION"] != live["MEMCACHED_LOCATION"]


@pytest.mark.parametrize("release", RELEASES)
def test_uwsgi_knows_every_option(lab: Lab, release: str) -> None:
    assert "virtualenv = /home/zulip/deployments/current/" in read(lab, release, "/etc/zulip/uwsgi.ini")
    text = inside(lab, release, UWSGI)
    assert "no-server mode requested. Goodbye." in text, text


@pytest.mark.parametrize("release", RELEASES)
def test_what_the_application_reads(lab: Lab, release: str) -> None:
    conf = configparser.RawConfigParser()
    conf.read_string(read(lab, release, "/etc/zulip/zulip.conf"))
    assert conf.get("machine", "deploy_type") == "production"
    assert conf.get("application_server", "katex_server") == "true"
    secrets = configparser.RawConfigParser()
    secrets.read_string(read(lab, release, "/etc/zulip/zulip-secrets.conf"))
    assert {"avatar_salt", "secret_key", "shared_secret", "zulip_org_id"} <= set(secrets["secrets"])
    sharding = json.loads(read(lab, release, "/etc/zulip/sharding.json"))
    ports = SHARDS[release]
    assert sharding == ({} if len(ports) == 1 else {"shard_map": {"chat.zulip-ha.test": ports}, "shard_regexes": []})


def test_a_broken_template_is_seen(lab: Lab) -> None:
    """The checks above can fail: each is given something wrong."""
    node = lab.in_group("app")[0]
    lab.run(node, "cp -a /run/rendered/12.4 /run/rendered/broken")
    lab.run(node, "echo 'no_such_directive on;' >>/run/rendered/broken/etc/nginx/zulip-ha/locations.conf")
    lab.run(node, "sed -i 's/^Type=.*/Type=none/' /run/rendered/broken/etc/systemd/system/zulip-django.service")
    with pytest.raises(AssertionError, match="no_such_directive"):
        inside(lab, "broken", "nginx -t 2>&1 || exit 1")
    lab.run(node, "echo 'no-such-option = 1' >>/run/rendered/broken/etc/zulip/uwsgi.ini")
    assert "unknown config directive: no-such-option" in inside(lab, "broken", UWSGI)
    text = inside(lab, "broken", "systemd-analyze verify --man=no zulip-django.service 2>&1 || true")
    assert "zulip-django.service" in text
    lab.run(node, "rm -rf /run/rendered/broken")
