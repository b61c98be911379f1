"""PostgreSQL: one leader, synchronous replicas, TLS and SCRAM alone, checksums, and the settings in effect."""

from __future__ import annotations

import json

import pytest

testinfra_hosts = ["ansible://database"]

PKI = "/etc/zulip-ha/pki"
REST = "https://127.0.0.1:8008"


@pytest.fixture
def cluster(host):
    return json.loads(host.check_output(f"curl --silent --fail --cacert {PKI}/ca.pem {REST}/cluster"))["members"]


def sql(host, query, database="postgres"):
    return host.check_output(f'psql -XAtq -v ON_ERROR_STOP=1 -U postgres -d {database} -c "{query}"')


def rest(host, *arguments):
    return host.run(f"curl --silent --output /dev/null --write-out '%{{http_code}}' {' '.join(arguments)}").stdout


def is_leader(host):
    return sql(host, "SELECT pg_is_in_recovery()") == "f"


def test_patroni_is_the_only_manager(host):
    assert host.service("patroni").is_running
    assert host.service("patroni").is_enabled
    assert not host.service("postgresql").is_enabled
    assert not host.run("systemctl list-units --state=active --no-legend 'postgresql@*'").stdout


def test_there_is_one_leader_and_all_members_run(cluster, variables):
    assert sorted(member["name"] for member in cluster) == sorted(variables["groups"]["database"])
    assert [member["role"] for member in cluster].count("leader") == 1
    assert {member["state"] for member in cluster} <= {"running", "streaming"}
    assert len({member["timeline"] for member in cluster}) == 1
    assert not [member["name"] for member in cluster if member.get("pending_restart")]


def test_a_replica_is_synchronous(host, cluster):
    if len(cluster) < 2:
        pytest.skip("this site has no second database host")
    assert "sync_standby" in {member["role"] for member in cluster}
    if is_leader(host):
        streaming = sql(host, "SELECT state || ' ' || sync_state FROM pg_stat_replication").splitlines()
        assert "streaming sync" in streaming
        assert len(streaming) >= len(cluster) - 1


def test_replication_is_encrypted(host, cluster):
    if len(cluster) < 2:
        pytest.skip("this site has no second database host")
    if is_leader(host):
        versions = sql(
            host, "SELECT DISTINCT coalesce(s.version, 'none') FROM pg_stat_replication JOIN pg_stat_ssl s USING (pid)"
        )
        assert versions == "TLSv1.3"
    else:
        conninfo = sql(host, "SELECT conninfo FROM pg_stat_wal_receiver")
        assert "sslmode=verify-full" in conninfo
        assert "channel_binding=disable" not in conninfo


def test_plain_connections_are_refused(host, address):
    connection = f"host={address} user=zulip dbname=zulip sslmode=disable password=x"
    answer = host.run(f"psql -X '{connection}' -c 'SELECT 1'")
    assert answer.rc != 0
    assert "no encryption" in answer.stderr


def test_old_tls_is_refused(host, address):
    base = f"openssl s_client -connect {address}:5432 -starttls postgres -CAfile {PKI}/ca.pem"
    assert host.run(f"{base} -tls1_2 </dev/null").rc != 0
    modern = host.run(f"{base} -tls1_3 -verify_return_error </dev/null")
    assert modern.rc == 0, modern.stderr


def test_no_rule_trusts_or_takes_less_than_scram(host):
    rules = sql(host, "SELECT type || ' ' || auth_method FROM pg_hba_file_rules").splitlines()
    assert set(rules) <= {"local peer", "hostssl scram-sha-256"}
    assert sql(host, "SELECT count(*) FROM pg_hba_file_rules WHERE error IS NOT NULL") == "0"


def test_every_password_is_scram(host):
    weak = "SELECT rolname FROM pg_authid WHERE rolcanlogin AND coalesce(rolpassword, '') !~ '^SCRAM-SHA-256'"
    assert sql(host, weak) == ""


def test_data_have_checksums(host):
    assert sql(host, "SHOW data_checksums") == "on"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ssl", "on"),
        ("ssl_min_protocol_version", "TLSv1.3"),
        ("password_encryption", "scram-sha-256"),
        ("wal_sender_timeout", "5s"),
        ("wal_log_hints", "on"),
        ("synchronous_commit", "on"),
        ("max_slot_wal_keep_size", "8GB"),
    ],
)
def test_settings_are_in_effect(host, name, value):
    assert sql(host, f"SHOW {name}") == value


def test_no_setting_waits_and_no_file_is_broken(host):
    assert sql(host, "SELECT name FROM pg_settings WHERE pending_restart") == ""
    broken = "SELECT name, error FROM pg_file_settings WHERE error IS NOT NULL AND name <> 'hot_standby'"
    assert sql(host, broken) == ""


def test_the_operators_directory_is_read(host):
    """A file there wins over ours, and nothing of it is left."""
    version = sql(host, "SELECT current_setting('server_version_num')::int / 10000")
    path = f"/etc/postgresql/{version}/main/local.d/zz-test.conf"
    query = f"SELECT setting FROM pg_file_settings WHERE sourcefile = '{path}' AND applied"
    try:
        host.check_output(f"echo log_temp_files=7777 >{path}")
        assert sql(host, query) == "7777"
    finally:
        host.check_output(f"rm {path}")


def test_the_database_is_as_the_application_wants_it(host):
    query = (
        "SELECT concat_ws(' ', pg_get_userbyid(datdba), pg_encoding_to_char(encoding), datcollate, datctype) "
        "FROM pg_database WHERE datname = 'zulip'"
    )
    assert sql(host, query) == "zulip UTF8 C.UTF-8 C.UTF-8"
    assert sql(host, "SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'zulip'", "zulip") == "zulip"
    settings = "SELECT setconfig FROM pg_db_role_setting JOIN pg_roles r ON r.oid = setrole WHERE rolname = 'zulip'"
    assert "search_path" in sql(host, settings)
    assert sql(host, "SELECT rolsuper OR rolcreaterole OR rolcreatedb FROM pg_roles WHERE rolname = 'zulip'") == "f"


def test_the_monitor_reads_all_and_changes_nothing(host):
    """From the hosts of the groups backup and monitor alone, one line for each of them."""
    rights = "SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication FROM pg_roles WHERE rolname = 'monitor'"
    assert sql(host, rights) == "f"
    member = "SELECT roleid::regrole FROM pg_auth_members WHERE member = 'monitor'::regrole"
    assert sorted(sql(host, member).splitlines()) == ["pg_monitor", "pg_read_all_data"]
    may = "SELECT has_schema_privilege('monitor', 'zulip', right_) FROM unnest('{usage,create}'::text[]) right_"
    assert sql(host, may, "zulip").splitlines() == ["t", "f"]
    rules = "SELECT address || ' ' || array_to_string(database, ',') FROM pg_hba_file_rules"
    found = sql(host, f"{rules} WHERE 'monitor' = ANY (user_name)").splitlines()
    wanted = "{{ (groups['backup'] + groups['monitor']) | site_addresses(hostvars) }}"
    addresses = host.ansible("ansible.builtin.debug", json.dumps({"msg": wanted}))["msg"]
    assert found == [f"{address} zulip,postgres" for address in addresses]


def test_patroni_tells_anyone_but_obeys_only_who_may(host):
    known = f"--cacert {PKI}/ca.pem"
    with_certificate = f"{known} --cert {PKI}/node.pem --key {PKI}/node.key"
    assert rest(host, known, f"{REST}/health") == "200"
    assert rest(host, known, "-X POST -d '{}'", f"{REST}/reload") == "403"
    assert rest(host, with_certificate, "-X POST -d '{}'", f"{REST}/reload") == "401"
    assert rest(host, f"http://{REST.removeprefix('https://')}/health") in ("000", "400")


def test_the_cluster_is_configured_for_no_lost_write(host):
    config = json.loads(host.check_output(f"curl --silent --fail --cacert {PKI}/ca.pem {REST}/config"))
    assert config["synchronous_mode"] is True
    assert (config["ttl"], config["primary_start_timeout"]) == (20, 0)
    # Patroni shortens what does not fit into the lease, and only says so in its log.
    assert config["loop_wait"] + 2 * config["retry_timeout"] <= config["ttl"]


def test_secrets_are_closed(host):
    config = host.file("/etc/patroni/config.yml")
    assert (config.user, config.group, config.mode) == ("root", "postgres", 0o640)


@pytest.fixture
def doubled(host):
    """Brings the host's English dictionary with doubled consonants or without; afterwards it is as the site has it."""
    version = sql(host, "SELECT current_setting('server_version_num')::int / 10000")
    directory = f"/usr/share/postgresql/{version}/tsearch_data"
    own = [] if host.file(f"{directory}/en_us.affix").is_symlink else ["en_us"]

    def bring(names):
        arguments = json.dumps({"directory": directory, "doubled": names})
        return host.ansible("postgresql_dictionary", arguments, check=False)["changed"]

    yield bring
    bring(own)


def test_doubled_consonants_lead_to_their_word(host, doubled):
    """In what PostgreSQL itself makes of Debian's dictionary."""

    def lexemes(*words):
        # What is rolled back never was; a replica cannot do it, and has the same files.
        make = "CREATE TEXT SEARCH DICTIONARY words (TEMPLATE = ispell, DictFile = en_us, AffFile = en_us)"
        ask = f"SELECT word, ts_lexize('words', word) FROM unnest('{{{','.join(words)}}}'::text[]) word"
        return dict(line.split("|") for line in sql(host, f"BEGIN; {make}; {ask}; ROLLBACK").splitlines())

    given = {"running": "{running,run}", "stopped": "{stopped,stop}", "stepping": "{steppe,step}"}
    same = {"stories": "{story}", "letter": "{letter}", "runner": "{runner}", "programmer": "{programmer}"}
    doubled(["en_us"])
    assert not doubled(["en_us"])
    # Debian's program leaves the files alone.
    host.check_output("pg_updatedicts")
    assert not doubled(["en_us"])
    if is_leader(host):
        assert lexemes(*given, *same) == given | same
    assert doubled([])
    if is_leader(host):
        assert lexemes("running") == {"running": "{running}"}
