"""The examples for ways to log in become a settings file that runs and has the values that Zulip wants."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

from filter_plugins import application
from plugin_utils.validation import known

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "docs/examples/authentication"
EXAMPLES = sorted(path.stem for path in FOLDER.glob("*.yml"))
SITE = {"site_hostname": "chat.example.com", "site_administrator": "admin@example.com"}
OURS = re.compile(r"\{\{ (own_\w+) \}\}")


def load(name: str) -> dict[str, Any]:
    """Return an example as Ansible would see it, the operator's own secrets filled in."""
    text = (FOLDER / f"{name}.yml").read_text(encoding="utf-8")
    secrets = {found: f"secret of {found}" for found in OURS.findall(text)}
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)

    def rendered(value: Any) -> Any:
        if isinstance(value, str):
            return environment.from_string(value, {**SITE, **secrets}).render() if "{{" in value else value
        if isinstance(value, dict):
            return {key: rendered(item) for key, item in value.items()}
        return [rendered(item) for item in value] if isinstance(value, list) else value

    return rendered(yaml.safe_load(text))


def settings_source(settings: dict[str, Any], imports: list[str]) -> str:
    """Return settings.py as the role app writes it."""
    environment = jinja2.Environment(trim_blocks=True, undefined=jinja2.StrictUndefined, autoescape=False)
    environment.filters |= application.FilterModule().filters()
    template = environment.from_string((ROOT / "roles/app/templates/settings.py.j2").read_text(encoding="utf-8"))
    return template.render(
        ansible_managed="managed",
        app_settings_imports=imports,
        app_contract={"tuple_settings": ["AUTHENTICATION_BACKENDS"]},
        __app_settings=settings,
        __app_direct_settings={"REMOTE_POSTGRES_PORT": "5000"},
        app_database_ca="/ca.pem",
    )


class Search:
    """Stands for LDAPSearch."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments


@pytest.fixture
def modules(monkeypatch):
    """Stand for what the release brings."""
    stubs = {
        "ldap": {"SCOPE_SUBTREE": 2, "OPT_X_TLS_CACERTFILE": 24578},
        "django_auth_ldap": {},
        "django_auth_ldap.config": {"LDAPSearch": Search},
        "zproject": {},
        "zproject.config": {"get_secret": lambda name: f"read {name}"},
    }
    for name, content in stubs.items():
        module = types.ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def run(modules, monkeypatch):
    """Return what a settings file sets."""
    monkeypatch.setenv("PGSSLROOTCERT", "")

    def execute(name: str) -> dict[str, Any]:
        example = load(name)
        source = settings_source(example["zulip_settings"], example.get("zulip_settings_imports", []))
        names: dict[str, Any] = {}
        exec(compile(source, "settings.py", "exec"), names)
        return names

    return execute


def test_there_is_one_for_each_way():
    assert EXAMPLES == ["apple", "email", "github", "google", "ldap", "openid_connect", "remote_user", "saml"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_sets_variables_that_exist(name):
    assert set(load(name)) <= known.read(ROOT).names


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_becomes_settings_without_secrets(run, name):
    names = run(name)
    example = load(name)
    assert {key for key in names if key.isupper()} >= set(example["zulip_settings"])
    source = settings_source(example["zulip_settings"], example.get("zulip_settings_imports", []))
    assert "secret of" not in source


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        ("apple", "AppleAuthBackend"),
        ("email", "EmailAuthBackend"),
        ("github", "GitHubAuthBackend"),
        ("google", "GoogleAuthBackend"),
        ("ldap", "ZulipLDAPAuthBackend"),
        ("openid_connect", "GenericOpenIdConnectBackend"),
        ("remote_user", "ZulipRemoteUserBackend"),
        ("saml", "SAMLAuthBackend"),
    ],
)
def test_an_example_keeps_the_owner_s_way_in(run, name, backend):
    backends = run(name)["AUTHENTICATION_BACKENDS"]
    assert "zproject.backends.EmailAuthBackend" in backends
    assert f"zproject.backends.{backend}" in backends


def test_ldap(run):
    names = run("ldap")
    assert names["AUTH_LDAP_USER_SEARCH"].arguments == ("ou=people,dc=example,dc=com", 2, "(uid=%(user)s)")
    assert names["AUTH_LDAP_REVERSE_EMAIL_SEARCH"].arguments[2] == "(mail=%(email)s)"
    assert names["AUTH_LDAP_GLOBAL_OPTIONS"] == {24578: "/etc/ssl/certs/ca-certificates.crt"}
    assert names["LDAP_DEACTIVATE_NON_MATCHING_USERS"] is True
    assert load("ldap")["zulip_secrets"] == {"auth_ldap_bind_password": "secret of own_ldap_bind_password"}


def test_openid_connect_reads_its_secret_by_name(run):
    provider = run("openid_connect")["SOCIAL_AUTH_OIDC_ENABLED_IDPS"]["keycloak"]
    assert provider["secret"] == "read social_auth_oidc_secret"
    assert provider["display_icon"] is None
    assert set(load("openid_connect")["zulip_secrets"]) == {"social_auth_oidc_secret"}


def test_saml(run):
    names = run("saml")
    (provider,) = names["SOCIAL_AUTH_SAML_ENABLED_IDPS"]
    assert names["SOCIAL_AUTH_SAML_SP_ENTITY_ID"] == "https://chat.example.com"
    assert names["SOCIAL_AUTH_SAML_SECURITY_CONFIG"] == {"authnRequestsSigned": True, "requestedAuthnContext": False}
    files = {entry["path"]: entry["content"] for entry in load("saml")["zulip_files"]}
    # Zulip looks for the provider's certificate by the provider's name, and for ours by these.
    assert set(files) == {f"saml/idps/{provider}.crt", "saml/zulip-cert.crt", "saml/zulip-private-key.key"}
    assert files["saml/zulip-private-key.key"] == "secret of own_saml_private_key"


def test_apple_brings_its_key_to_where_zulip_looks():
    assert [entry["path"] for entry in load("apple")["zulip_files"]] == ["apple-auth-key.p8"]


def test_remote_user(run):
    assert run("remote_user")["SSO_APPEND_DOMAIN"] is None
    example = load("remote_user")
    (snippet,) = example["nginx_server_snippets"]
    assert f"/etc/zulip/{example['zulip_files'][0]['path']};" in snippet["content"]


@pytest.mark.parametrize("name", ["google", "github"])
def test_the_secret_has_the_name_that_zulip_reads(name):
    assert set(load(name)["zulip_secrets"]) == {f"social_auth_{name}_secret"}


def test_a_tuple_can_be_written_where_zulip_compares_with_one():
    settings = {"X": {"python_expression": "('zproject.backends.ZulipLDAPAuthBackend',)"}}
    names: dict[str, Any] = {}
    exec(settings_source(settings, []), names)
    assert names["X"] == ("zproject.backends.ZulipLDAPAuthBackend",)
