"""What nginx answers on an app host."""

from __future__ import annotations

import json
from contextlib import contextmanager

import pytest

testinfra_hosts = ["ansible://app"]

HTTPS = "https://127.0.0.1"


@pytest.fixture
def ask(host):
    """Return a function that asks the host's own nginx and returns status and headers."""

    def run(url: str, options: str = "") -> tuple[int, dict[str, str]]:
        # The name in the certificate is the site's, not 127.0.0.1; test_tls checks the certificate itself.
        text = host.check_output(
            f"curl --silent --insecure --max-time 10 --output /dev/null --dump-header - {options} {url}"
        )
        lines = [line.strip() for line in text.strip().splitlines()]
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
        return int(lines[0].split()[1]), headers

    return run


def test_service_runs_and_is_enabled(host):
    assert host.service("nginx").is_running
    assert host.service("nginx").is_enabled


def test_the_configuration_is_good(host):
    with host.sudo():
        assert host.run("/usr/sbin/nginx -t").rc == 0


def test_debians_site_is_gone(host):
    assert not host.file("/etc/nginx/sites-enabled/default").exists


def test_http_leads_to_https(ask, host):
    address = host.ansible.get_variables()["ansible_host"]
    status, headers = ask(f"http://{address}/some/where?x=1", "--header 'Host: chat.example.com'")
    assert status == 301
    assert headers["location"] == "https://chat.example.com/some/where?x=1"


def test_tls(host):
    variables = host.ansible.get_variables()
    check = f"echo | openssl s_client -connect 127.0.0.1:443 -servername {variables['site_hostname']}"
    said = host.run(f"{check} -verify_return_error -CAfile /etc/zulip-ha/pki/public.pem -partial_chain 2>&1").stdout
    assert "TLSv1.3" in said
    assert "Verify return code: 0 (ok)" in said
    assert host.run(f"{check} -tls1_1 2>&1").rc != 0
    assert host.run(f"{check} -tls1_2 -cipher ECDHE-ECDSA-AES128-GCM-SHA256 2>&1").rc == 0
    assert host.run(f"{check} -tls1_2 -cipher AES128-SHA 2>&1").rc != 0


def test_http2_and_headers(ask):
    status, headers = ask(f"{HTTPS}/static/webpack-bundles/5xx.html", "--write-out '%{http_version}: x\\n'")
    assert status == 200
    assert headers["2"] == "x"
    assert "max-age" in headers["strict-transport-security"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["server"] == "nginx"


def test_active_says_who_holds_the_lease(ask, host):
    expected = 200 if host.file("/run/zulip-ha/active").exists else 503
    assert ask(f"{HTTPS}/ha/active")[0] == expected
    assert ask("http://127.0.0.1/ha/active")[0] == expected


def test_events_go_to_tornado(ask):
    assert ask(f"{HTTPS}/api/v1/events")[0] == 401
    assert ask(f"{HTTPS}/json/events", "--request POST")[0] == 405
    assert ask(f"{HTTPS}/json/events", "--request OPTIONS")[0] == 204


@pytest.mark.parametrize(
    "path", ["/internal/tornado/9800/api/v1/events", "/internal/local/uploads/x", "/internal/local/user_avatars/x"]
)
def test_internal_paths_are_not_for_clients(ask, path):
    assert ask(HTTPS + path)[0] == 404


@contextmanager
def closing(host):
    """The host is about to hand over."""
    with host.sudo():
        host.check_output("touch /run/zulip-ha/closing")
    try:
        yield
    finally:
        with host.sudo():
            host.check_output("rm /run/zulip-ha/closing")


@pytest.mark.parametrize("path", ["/api/v1/server_settings", "/json/events?x=%2F", "/user_uploads/2/x"])
def test_before_a_move_clients_are_told_that_the_connection_ends(ask, host, path):
    status, headers = ask(HTTPS + path, "--http1.1")
    with closing(host):
        status_then, headers_then = ask(HTTPS + path, "--http1.1")
    assert (headers["connection"], headers_then["connection"]) == ("keep-alive", "close")
    # It is the same request all the same.
    assert status_then == status
    assert status < 500


@pytest.mark.parametrize(
    "path",
    [
        "/internal/tornado/9800/api/v1/events",
        "/zulip-ha-closing/internal/tornado/9800/api/v1/events",
        "/api/../internal/tornado/9800/api/v1/events",
        "/zulip-ha-closing/api/v1/server_settings",
    ],
)
def test_before_a_move_internal_paths_are_not_for_clients_either(ask, host, path):
    with closing(host):
        assert ask(HTTPS + path, "--path-as-is")[0] == 404


def test_the_api_is_django(ask):
    status, headers = ask(f"{HTTPS}/api/v1/messages")
    assert status == 401
    assert headers["access-control-allow-origin"] == "*"


def test_local_http_offers_nothing_but_health(ask):
    assert ask("http://127.0.0.1/")[0] == 301
    assert ask("http://127.0.0.1/health")[0] == 200
    assert ask("http://127.0.0.1/api/v1/messages")[0] == 301


def test_workers_may_use_the_socket_and_not_the_secrets(host):
    processes = [line.split(maxsplit=2) for line in host.check_output("ps -C nginx -o user=,group=,args=").splitlines()]
    workers = {(user, group) for user, group, program in processes if program.startswith("nginx: worker")}
    assert workers == {("www-data", "zulip")}


def test_the_log_holds_no_query(host, ask):
    ask(f"{HTTPS}/static/x-for-the-test?api_key=secret")
    with host.sudo():
        line = host.check_output("grep x-for-the-test /var/log/nginx/access.log | tail -1")
    assert json.loads(line)["path"] == "/static/x-for-the-test"
    assert "secret" not in line


def test_local_directories_are_read(host):
    assert "include local.d/http/*.conf;" in host.file("/etc/nginx/nginx.conf").content_string
    assert "include local.d/server/*.conf;" in host.file("/etc/nginx/zulip-ha/site.conf").content_string
    assert host.file("/etc/nginx/local.d/http").is_directory
    assert host.file("/etc/nginx/local.d/server").is_directory
