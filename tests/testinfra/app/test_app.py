"""The application's processes on an app host, their confinement, and that what runs once runs once."""

from __future__ import annotations

import json
import re
import time

import pytest

testinfra_hosts = ["ansible://app"]

EXPOSURE = 2.5


@pytest.fixture
def units(host) -> list[str]:
    """Return the units that run on each app host."""
    wants = host.check_output("systemctl show --property=Wants --value zulip.target").split()
    return sorted(unit for unit in wants if unit.startswith("zulip-"))


def is_active(host) -> bool:
    """Whether the host holds the lease."""
    return host.file("/run/zulip-ha/active").exists


def test_everything_that_is_wanted_runs(host, units):
    assert "zulip-django.service" in units
    assert "zulip-tornado@9800.service" in units
    assert any(unit.startswith("zulip-worker@") for unit in units)
    states = host.check_output(f"systemctl show --property=Id,ActiveState {' '.join(units)}")
    assert states.count("ActiveState=active") == len(units), states


def test_the_target_starts_with_the_host_and_the_active_one_does_not(host):
    assert host.service("zulip.target").is_enabled
    assert host.check_output("systemctl show --property=UnitFileState --value zulip-active.target") == "static"


def test_nothing_keeps_falling_over(host, units):
    services = [unit for unit in units if unit.endswith(".service")]
    restarts = host.check_output(f"systemctl show --property=NRestarts --value {' '.join(services)}").split()
    assert max(map(int, restarts)) <= 3, dict(zip(services, restarts, strict=True))


def test_what_runs_once_follows_the_lease(host):
    singletons = host.check_output("systemctl show --property=Wants --value zulip-active.target").split()
    assert any(unit.startswith("zulip-singleton@") for unit in singletons)
    expected = "active" if is_active(host) else "inactive"
    for unit in singletons:
        assert host.run(f"systemctl is-active {unit}").stdout.strip() == expected, unit


def test_django_starts_anew_with_the_broker(host):
    after = host.check_output("systemctl show --property=ExecStartPost rabbitmq-server.service")
    assert "path=/usr/local/lib/zulip-ha/broker_started " in after
    if is_active(host):
        # Its broker is left alone.
        return
    # The master stays, its processes follow one after the other.
    processes = "pgrep -P $(systemctl show --property=MainPID --value zulip-django.service)"
    before = set(host.check_output(processes).split())
    host.check_output("systemctl restart rabbitmq-server.service")
    for _ in range(60):
        now = set(host.check_output(processes).split())
        if now and not now & before:
            return
        time.sleep(0.5)
    pytest.fail(f"of Django's processes {before} there are still {now & before} 30 s after the broker restarted")


def test_every_unit_is_confined(host, units):
    once = host.check_output("systemctl show --property=Wants --value zulip-active.target").split()
    services = [unit for unit in units + once if unit.startswith("zulip-") and unit.endswith(".service")]
    services = [unit for unit in services if "uploads" not in unit]
    crons = host.check_output("systemctl list-unit-files --plain --no-legend 'zulip-cron-*.service'").split()
    services += [name for name in crons if name.endswith(".service")]
    levels = {}
    for unit in services:
        said = host.check_output(f"systemd-analyze security --no-pager {unit}").splitlines()[-1]
        levels[unit] = float(re.search(r": ([0-9.]+) ", said)[1])
    assert levels
    assert max(levels.values()) <= EXPOSURE, levels


def test_only_django_tornado_and_their_user_may_read_the_secrets(host):
    secrets = host.file("/etc/zulip/zulip-secrets.conf")
    assert (secrets.user, secrets.group, secrets.mode) == ("zulip", "zulip", 0o600)


def test_settings_can_be_read_by_python(host):
    assert host.run("python3 -c 'import ast; ast.parse(open(\"/etc/zulip/settings.py\").read())'").rc == 0


def test_requests_go_through_the_pooler_and_sessions_past_it(host):
    show = 'import runpy; print(runpy.run_path("/etc/zulip/settings.py")["REMOTE_POSTGRES_PORT"])'
    assert host.check_output(f"python3 -c '{show}'") == "6432"
    assert host.check_output(f"ZULIP_HA_DATABASE=direct python3 -c '{show}'") == "5000"


def test_sharding_json_names_shards_that_run(host, units):
    sharding = json.loads(host.check_output("cat /etc/zulip/sharding.json"))
    named = set()
    for ports in [*sharding.get("shard_map", {}).values(), *(ports for _, ports in sharding.get("shard_regexes", []))]:
        named |= {ports} if isinstance(ports, int) else set(ports)
    running = {int(unit[14:18]) for unit in units if unit.startswith("zulip-tornado@")}
    assert (named or {9800}) == running


def test_the_application_is_healthy(host):
    answer = host.run("curl --silent --insecure --max-time 10 https://127.0.0.1/health")
    assert json.loads(answer.stdout)["result"] == "success", answer.stdout


def test_sessions_of_the_lock_are_the_active_hosts(host):
    if not is_active(host):
        assert "singleton" not in host.check_output("ps -eo args | grep '[/]zulip-ha/singleton ' || true")
        return
    log = host.check_output("journalctl --no-pager --boot --output=cat --unit='zulip-singleton@*'")
    assert "lock taken" in log
