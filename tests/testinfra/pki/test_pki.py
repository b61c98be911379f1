"""Certificates: signed by the site's CA, for the right names, not too long, not too soon at their end, keys closed."""

from __future__ import annotations

testinfra_hosts = ["ansible://all"]

PKI = "/etc/zulip-ha/pki"
DAY = 86400


def x509(host, name, *options):
    return host.check_output(f"openssl x509 -noout -in {PKI}/{name}.pem {' '.join(options)}")


def test_the_node_certificate_is_signed_by_the_ca(host):
    assert host.run(f"openssl verify -CAfile {PKI}/ca.pem -purpose sslserver {PKI}/node.pem").rc == 0
    assert host.run(f"openssl verify -CAfile {PKI}/ca.pem -purpose sslclient {PKI}/node.pem").rc == 0


def test_the_node_certificate_is_for_this_host(host, variables, address):
    for option in (
        f"-checkhost {variables['inventory_hostname']}",
        "-checkhost localhost",
        f"-checkip {address}",
        "-checkip 127.0.0.1",
        "-checkip ::1",
    ):
        # "does match certificate" and "does NOT match certificate" are told apart by the words alone.
        assert "does match" in x509(host, "node", option), option


def test_key_and_certificate_belong_together(host):
    assert x509(host, "node", "-pubkey") == host.check_output(f"openssl pkey -pubout -in {PKI}/node.key").strip()


def test_the_key_is_elliptic_and_closed(host):
    key = host.file(f"{PKI}/node.key")
    assert (key.user, key.group, key.mode) == ("root", "ssl-cert", 0o640)
    assert "prime256v1" in x509(host, "node", "-text")


def test_the_validity_is_neither_too_long_nor_nearly_over(host):
    assert host.run(f"openssl x509 -noout -in {PKI}/node.pem -checkend {30 * DAY}").rc == 0
    assert host.run(f"openssl x509 -noout -in {PKI}/node.pem -checkend {397 * DAY}").rc == 1


def test_no_key_of_the_ca_is_on_a_host(host):
    for path in host.check_output(f"find {PKI} -name '*.key'").split():
        assert host.check_output(f"openssl pkey -pubout -in {path}") != host.check_output(
            f"openssl x509 -noout -pubkey -in {PKI}/ca.pem"
        )


def test_no_reload_is_owed(host):
    assert not host.file("/var/lib/zulip-ha/pki-reload").exists


def test_the_public_certificate_is_where_the_application_is(host, variables):
    wanted = "app" in variables["group_names"]
    assert host.file(f"{PKI}/public.pem").exists is wanted
    assert host.file(f"{PKI}/public.key").exists is wanted
    if wanted:
        name = host.ansible("ansible.builtin.debug", "msg={{ site_hostname }}")["msg"]
        assert host.file(f"{PKI}/public.key").mode == 0o600
        assert x509(host, "public", "-pubkey") == host.check_output(f"openssl pkey -pubout -in {PKI}/public.key")
        assert "does match" in x509(host, "public", f"-checkhost {name}")
