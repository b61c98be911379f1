"""How the files of /etc/zulip become settings: a fresh interpreter reads each set of files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from zproject.config import read_ini, read_sharding

STANDIN = Path(__file__).resolve().parents[3] / "standin"
MINIMAL = 'EXTERNAL_HOST = "chat.example.com"\n'


def evaluate(directory: Path, expression: str, **environment: str):
    """The value of an expression over the settings that the files in the directory make."""
    program = f"import json; from zproject import settings as s; print(json.dumps({expression}))"
    environment = {**os.environ, **environment, "STANDIN_SETTINGS": str(directory / "settings.py")}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=STANDIN, env=environment, check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout)


@pytest.fixture
def site(tmp_path):
    """Write files of a site; return their directory."""

    def write(settings: str = MINIMAL, **files: str) -> Path:
        (tmp_path / "settings.py").write_text(settings)
        for name, content in files.items():
            (tmp_path / name.replace("__", ".").replace("_", "-")).write_text(content)
        return tmp_path

    return write


def test_secrets_are_literal(site):
    secrets = "[secrets]\nsecret_key = a%b(c)=#d$\npostgres_password = pg\nredis_password = r\n"
    directory = site(zulip_secrets__conf=secrets)
    assert evaluate(directory, "[s.SECRET_KEY, s.DATABASES['default']['PASSWORD'], s.REDIS_PASSWORD]") == [
        "a%b(c)=#d$",
        "pg",
        "r",
    ]


def test_database_settings_suit_a_transaction_pooler(site):
    settings = MINIMAL + 'REMOTE_POSTGRES_HOST = "127.0.0.1"\nREMOTE_POSTGRES_PORT = 6432\n'
    database = evaluate(site(settings), "s.DATABASES['default']")
    assert (database["HOST"], database["PORT"], database["NAME"], database["USER"]) == (
        "127.0.0.1",
        6432,
        "zulip",
        "zulip",
    )
    assert database["DISABLE_SERVER_SIDE_CURSORS"] is True
    assert database["CONN_HEALTH_CHECKS"] is True
    assert database["OPTIONS"]["prepare_threshold"] is None
    assert database["OPTIONS"]["sslmode"] == "verify-full"


def test_settings_may_depend_on_the_environment(site):
    settings = MINIMAL + (
        "import os\nREMOTE_POSTGRES_HOST = '127.0.0.1'\n"
        "REMOTE_POSTGRES_PORT = 5000 if os.environ.get('ZULIP_HA_DATABASE') == 'direct' else 6432\n"
    )
    directory = site(settings)
    assert evaluate(directory, "s.DATABASES['default']['PORT']") == 6432
    assert evaluate(directory, "s.DATABASES['default']['PORT']", ZULIP_HA_DATABASE="direct") == 5000


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ('REMOTE_POSTGRES_HOST = ""', [None, None]),
        ('REMOTE_POSTGRES_HOST = "db1"\nREMOTE_POSTGRES_SSLMODE = ""', ["verify-full", None]),
        ('REMOTE_POSTGRES_HOST = "db1,db2"\nREMOTE_POSTGRES_SSLMODE = "require"', ["require", "read-write"]),
    ],
)
def test_database_options_are_as_zulips(site, lines, expected):
    options = "s.DATABASES['default']['OPTIONS']"
    asked = f"[{options}.get('sslmode'), {options}.get('target_session_attrs')]"
    assert evaluate(site(MINIMAL + lines + "\n"), asked) == expected


def test_database_name_comes_from_zulip_conf(site):
    directory = site(zulip__conf="[postgresql]\ndatabase_name = other\n")
    assert evaluate(directory, "s.DATABASES['default']['NAME']") == "other"


def test_hosts_and_limits_are_merged(site):
    lines = ['EXTERNAL_HOST = "chat.example.com:8443"', 'ALLOWED_HOSTS = ["10.0.0.9"]']
    lines += ['RATE_LIMITING_RULES = {"api_by_ip": []}', ""]
    directory = site("\n".join(lines))
    assert evaluate(directory, "s.ALLOWED_HOSTS") == ["10.0.0.9", "chat.example.com", "127.0.0.1", "localhost"]
    assert evaluate(directory, "s.CSRF_TRUSTED_ORIGINS") == ["https://chat.example.com:8443"]
    assert evaluate(directory, "s.RATE_LIMITING_RULES") == {
        "api_by_user": [[60, 200]],
        "api_by_ip": [],
        "authenticate_by_username": [[1800, 5]],
    }


def test_the_site_replaces_what_is_computed(site):
    assert evaluate(site(MINIMAL + "SESSION_COOKIE_AGE = 5\nUSE_TZ = False\n"), "[s.SESSION_COOKIE_AGE, s.USE_TZ]") == [
        5,
        False,
    ]


@pytest.mark.parametrize(
    ("line", "backend"),
    [("", "dummy"), ('EMAIL_HOST = "mail"', "smtp"), ('EMAIL_HOST = "mail"\nEMAIL_BACKEND = "x.Y"', "x.Y")],
)
def test_mail_backend(site, line, backend):
    assert backend in evaluate(site(MINIMAL + line + "\n"), "s.EMAIL_BACKEND")


def test_sharding_file(site, tmp_path):
    assert read_sharding(tmp_path / "absent.json") == {}
    directory = site(sharding__json='{"chat.example.com": [9800, 9801]}')
    assert evaluate(directory, "s.SHARDING") == {"chat.example.com": [9800, 9801]}


def test_absent_ini_is_empty(tmp_path):
    assert read_ini(tmp_path / "absent.conf").sections() == []


def test_example_settings_are_complete():
    template = STANDIN / "zproject" / "prod_settings_template.py"
    assert "chat.example.com" in template.read_text()
    environment = {**os.environ, "STANDIN_SETTINGS": str(template)}
    done = subprocess.run(
        [sys.executable, "-c", "import zproject.settings"], cwd=STANDIN, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
