"""settings.py as the role writes it: which database a command gets, and what a restored copy must not reach."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jinja2
import pytest

from filter_plugins import application
from tests.unit.app.paths import ROOT

SETTINGS = {
    "EXTERNAL_HOST": "chat.example.com",
    "LOCAL_UPLOADS_DIR": "/home/zulip/uploads",
    "MEMCACHED_LOCATION": "127.0.0.1:11211",
    "RABBITMQ_HOST": "127.0.0.1",
    "REMOTE_POSTGRES_HOST": "127.0.0.1",
    "REMOTE_POSTGRES_PORT": "6432",
    "REMOTE_POSTGRES_SSLMODE": "disable",
}
DIRECT = {"REMOTE_POSTGRES_HOST": "127.0.0.1", "REMOTE_POSTGRES_PORT": "5000", "REMOTE_POSTGRES_SSLMODE": "verify-full"}
POOLED_DATABASE, DIRECT_DATABASE = ["127.0.0.1", "6432", "disable"], ["127.0.0.1", "5000", "verify-full"]
LOCAL = "/etc/zulip/settings_local.py"
READ = """
import json, runpy, sys
names = {name: value for name, value in runpy.run_path(sys.argv[1]).items() if name.isupper()}
import os
print(json.dumps(names | {"PGSSLROOTCERT": os.environ["PGSSLROOTCERT"]}))
"""


def source() -> str:
    """Return the file as the role renders it."""
    environment = jinja2.Environment(trim_blocks=True, undefined=jinja2.StrictUndefined, autoescape=False)
    environment.filters |= application.FilterModule().filters()
    template = environment.from_string((ROOT / "roles/app/templates/settings.py.j2").read_text(encoding="utf-8"))
    return template.render(
        ansible_managed="managed",
        app_settings_imports=[],
        app_contract={"tuple_settings": []},
        __app_settings=SETTINGS,
        __app_direct_settings=DIRECT,
        app_database_ca="/etc/zulip-ha/pki/ca.pem",
    )


@pytest.fixture
def read(tmp_path: Path):
    """Return what the file sets in an environment, with the host's own file beside it."""

    def run(local: str = "", **given: str) -> dict:
        (tmp_path / "local.py").write_text(local)
        (tmp_path / "settings.py").write_text(source().replace(LOCAL, str(tmp_path / "local.py")))
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("ZULIP_HA_", "PGSSL"))}
        done = subprocess.run(
            [sys.executable, "-c", READ, str(tmp_path / "settings.py")],
            env=kept | given,
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(done.stdout)

    return run


def database(names: dict) -> list[str]:
    return [names[f"REMOTE_POSTGRES_{name}"] for name in ("HOST", "PORT", "SSLMODE")]


def test_the_pooler_and_the_way_past_it(read):
    assert database(read()) == POOLED_DATABASE
    assert database(read(ZULIP_HA_DATABASE="direct")) == DIRECT_DATABASE
    assert read()["PGSSLROOTCERT"] == "/etc/zulip-ha/pki/ca.pem"


def test_a_restored_copy_is_reached_over_verified_tls(read):
    names = read(ZULIP_HA_DATABASE_HOST="mon1", ZULIP_HA_DATABASE_PORT="5433", ZULIP_HA_DATABASE="direct")
    assert database(names) == ["mon1", "5433", "verify-full"]
    assert names["PGSSLROOTCERT"] == "/etc/zulip-ha/pki/ca.pem"


def test_its_port_is_postgresqls_own_when_none_is_named(read):
    assert database(read(ZULIP_HA_DATABASE_HOST="fd00::2")) == ["fd00::2", "5432", "verify-full"]


def test_nothing_of_a_copy_reaches_users(read):
    names = read(ZULIP_HA_DATABASE_HOST="mon1")
    assert names["MEMCACHED_LOCATION"] == "127.0.0.1:1"
    assert (names["RABBITMQ_HOST"], names["RABBITMQ_PORT"]) == ("127.0.0.1", 1)
    assert "dummy" in names["EMAIL_BACKEND"]


def test_the_hosts_own_file_does_not_lead_back_to_the_live_database(read):
    local = "REMOTE_POSTGRES_HOST = 'live'\nMEMCACHED_LOCATION = 'live:11211'\nEMAIL_BACKEND = 'live'\n"
    names = read(local, ZULIP_HA_DATABASE_HOST="mon1")
    assert "live" not in json.dumps(names)
    assert read(local)["REMOTE_POSTGRES_HOST"] == "live"


@pytest.mark.parametrize("given", [{}, {"ZULIP_HA_DATABASE_HOST": ""}, {"ZULIP_HA_DATABASE_PORT": "5433"}])
def test_without_a_host_all_is_the_live_site(read, given):
    names = read(ZULIP_HA_UPLOADS_DIRECTORY="/srv/then", **given)
    assert database(names) == POOLED_DATABASE
    assert {name: names[name] for name in SETTINGS} == SETTINGS
    assert "EMAIL_BACKEND" not in names


def test_the_uploads_of_that_time(read):
    assert read(ZULIP_HA_DATABASE_HOST="mon1")["LOCAL_UPLOADS_DIR"] == "/home/zulip/uploads"
    names = read(ZULIP_HA_DATABASE_HOST="mon1", ZULIP_HA_UPLOADS_DIRECTORY="/srv/then")
    assert names["LOCAL_UPLOADS_DIR"] == "/srv/then"
