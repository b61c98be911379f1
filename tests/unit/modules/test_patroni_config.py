"""The three-way comparison, and the module against a REST API that answers as Patroni does."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from library import patroni_config

WANTED = {"ttl": 20, "postgresql": {"use_slots": True, "parameters": {"max_connections": 300}}}
BOOTED = {**WANTED, "zulip_ha": {"applied": WANTED}}
CONNECTIONS = "postgresql/parameters/max_connections"


def patch(config, changes):
    """What Patroni does with the body of a PATCH."""
    for key, value in changes.items():
        if value is None:
            config.pop(key, None)
        elif isinstance(value, dict) and isinstance(config.get(key), dict):
            patch(config[key], value)
        else:
            config[key] = value


def member(name, role="replica", state="streaming", **more):
    lag = {} if role == "leader" else {"lag": 0}
    return {"name": name, "role": role, "state": state, "timeline": 1, **lag, **more}


HEALTHY = [member("db1", "leader", "running"), member("db2", "sync_standby")]


class Patroni(ThreadingHTTPServer):
    def __init__(self, config, members):
        self.config, self.members, self.requests, self.busy, self.later = config, members, [], 0, []
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def answer(self, status, body):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def do_GET(self):
        if self.path == "/config":
            self.answer(200 if self.server.config else 502, self.server.config)
            return
        self.answer(200, {"members": self.server.members})
        if self.server.later:
            self.server.members = self.server.later.pop(0)

    def do_PATCH(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((body, self.headers.get("Authorization")))
        if self.server.busy:
            self.server.busy -= 1
            self.answer(409, {})
            return
        if not self.headers.get("Authorization"):
            self.answer(401, {})
            return
        patch(self.server.config, body)
        self.answer(200, self.server.config)

    def log_message(self, *_):
        pass


@pytest.fixture
def api(monkeypatch):
    monkeypatch.setattr(patroni_config.time, "sleep", lambda _: None)
    server = Patroni(json.loads(json.dumps(BOOTED)), HEALTHY)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def run(api, settings=None, check_mode=False, **more):
    params = {name: option.get("default") for name, option in patroni_config.ARGUMENT_SPEC.items()}
    params.update(url=api.url, username="patroni", password="secret", settings=settings, timeout=1, **more)
    return patroni_config.Run(params, check_mode)()


def test_leaves_and_trees():
    leaves = patroni_config.flatten(WANTED)
    assert leaves == {"ttl": 20, "postgresql/use_slots": True, CONNECTIONS: 300}
    assert patroni_config.nest(leaves) == WANTED


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [(300, "300", True), (True, 1, False), (True, True, True), (None, None, True), (None, "", False), ([1], [1], True)],
)
def test_same(one, other, equal):
    assert patroni_config.same(one, other) is equal


def test_a_bootstrapped_cluster_is_left_alone(api):
    result = run(api, WANTED, members=["db1", "db2"])
    assert (result["changed"], api.requests, result["leader"]) == (False, [], "db1")


def test_a_changed_variable_is_applied_with_the_memory_of_it(api):
    wanted = {**WANTED, "ttl": 25}
    assert run(api, wanted)["keys"] == {"ttl": {"before": 20, "after": 25}}
    assert [body for body, _ in api.requests] == [{"ttl": 25, "zulip_ha": {"applied": {"ttl": 25}}}]
    assert run(api, wanted)["changed"] is False


def test_unknown_keys_stay(api):
    api.config["postgresql"]["parameters"]["work_mem"] = "1GB"
    assert run(api, {**WANTED, "ttl": 25})["drift"] == []
    assert api.config["postgresql"]["parameters"]["work_mem"] == "1GB"


def test_a_key_that_is_not_wanted_any_more_goes(api):
    assert run(api, {"ttl": 20, "postgresql": {"use_slots": True}})["keys"] == {
        CONNECTIONS: {"before": 300, "after": None}
    }
    assert api.config["postgresql"] == {"use_slots": True, "parameters": {}}
    assert "parameters" not in patroni_config.flatten(api.config["zulip_ha"])


def test_a_key_that_is_not_wanted_any_more_but_was_edited_stays(api):
    api.config["ttl"] = 40
    assert run(api, {"postgresql": WANTED["postgresql"]})["changed"] is False
    assert api.config["ttl"] == 40
    assert "ttl" not in api.config["zulip_ha"]["applied"]


def test_drift_stops_before_anything_is_changed(api):
    api.config["postgresql"]["parameters"]["max_connections"] = 500
    with pytest.raises(patroni_config.DriftError) as failure:
        run(
            api,
            {**WANTED, "ttl": 25},
            variables={"postgresql/parameters": "postgresql_parameters", "": "postgresql_dcs_settings"},
        )
    message = str(failure.value)
    assert f"{CONNECTIONS} (500, was 300)" in message
    assert "postgresql_parameters in the inventory's 90-local.yml" in message
    assert "\n" not in message
    assert failure.value.drift == [{"key": CONNECTIONS, "found": 500, "applied": 300, "wanted": 300}]
    assert api.requests == []


def test_drift_is_kept_again_and_again(api):
    api.config["ttl"] = 40
    for _ in range(2):
        result = run(api, WANTED, local_edits="keep")
        assert (result["changed"], len(result["drift"]), api.config["ttl"]) == (False, 1, 40)


def test_drift_is_overwritten(api):
    api.config["ttl"] = 40
    assert run(api, WANTED, local_edits="overwrite")["keys"] == {"ttl": {"before": 40, "after": 20}}
    assert run(api, WANTED)["changed"] is False


def test_an_edit_that_the_variables_caught_up_with_is_no_drift(api):
    api.config["ttl"] = 40
    result = run(api, {**WANTED, "ttl": 40})
    assert (result["changed"], result["drift"]) == (False, [])
    assert api.config["zulip_ha"]["applied"]["ttl"] == 40


def test_a_value_of_somebody_else_for_a_key_that_is_new_to_us_is_drift(api):
    api.config["synchronous_node_count"] = 2
    with pytest.raises(patroni_config.DriftError, match="synchronous_node_count \\(2, was nothing\\)"):
        run(api, {**WANTED, "synchronous_node_count": 1})


def test_check_mode_predicts_and_changes_nothing(api):
    result = run(api, {**WANTED, "ttl": 25}, check_mode=True)
    assert (result["changed"], result["leader"], api.requests) == (True, "db1", [])
    assert "ttl: 25" in result["diff"]["after"]


def test_check_mode_on_a_host_without_patroni_predicts_nothing(api):
    api.url = "http://127.0.0.1:1"
    result = run(api, WANTED, check_mode=True)
    assert (result["changed"], result["leader"], result["members"]) == (False, "", [])


def test_a_change_in_the_same_moment_is_repeated(api):
    api.busy = 1
    run(api, {**WANTED, "ttl": 25})
    assert (len(api.requests), api.config["ttl"]) == (2, 25)


def test_a_wrong_password_is_told_at_once(api):
    params = {name: option.get("default") for name, option in patroni_config.ARGUMENT_SPEC.items()}
    module = patroni_config.Run({**params, "url": api.url, "settings": {"ttl": 25}, "timeout": 1}, False)
    with pytest.raises(patroni_config.PatroniError, match="401"):
        module()


def test_waits_until_the_members_are_there(api):
    api.members = [member("db1", "leader", "running")]
    api.later = [[*api.members, member("db2", state="creating replica")], HEALTHY]
    assert len(run(api, members=["db1", "db2"])["members"]) == 2


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([], "no running leader"),
        ([member("db1", "leader", "starting")], "no running leader"),
        ([HEALTHY[0]], "db2 is not a member yet"),
        ([HEALTHY[0], member("db2", "sync_standby", "starting")], "db2 is starting"),
        ([HEALTHY[0], member("db2", "sync_standby", lag=9999999)], "db2 lags by 9999999"),
        ([HEALTHY[0], member("db2", "sync_standby", lag="unknown")], "db2 lags by unknown"),
        ([HEALTHY[0], {**member("db2", "sync_standby"), "timeline": 2}], "db2 is on timeline 2"),
        ([HEALTHY[0], member("db2")], "no synchronous standby"),
        ([HEALTHY[0], member("db2", "sync_standby", pending_restart=True)], "db2 waits for a restart"),
    ],
)
def test_gives_up_with_the_reason(api, members, message):
    clock = iter(range(100))
    api.members = members
    params = {name: option.get("default") for name, option in patroni_config.ARGUMENT_SPEC.items()}
    params.update(url=api.url, timeout=2, members=["db1", "db2"], settled=["db2"])
    module = patroni_config.Run(params, False, lambda: next(clock))
    with pytest.raises(patroni_config.PatroniError, match=message):
        module()


def test_looking_once_does_not_complain(api):
    api.members = []
    params = {name: option.get("default") for name, option in patroni_config.ARGUMENT_SPEC.items()}
    assert patroni_config.Run({**params, "url": api.url, "timeout": 0, "members": ["db1"]}, False)()["leader"] == ""


def test_tells_who_waits_for_a_restart(api):
    api.members = [HEALTHY[0], member("db2", "sync_standby", pending_restart=True)]
    assert run(api, members=["db1", "db2"])["pending_restart"] == ["db2"]


def test_one_member_needs_no_standby(api):
    api.members = HEALTHY[:1]
    assert run(api, members=["db1"])["leader"] == "db1"


def test_a_leader_can_be_enough(api):
    api.members = HEALTHY[:1]
    result = run(api, members=["db1", "db2"], wait_for="leader")
    assert result["leader"] == "db1"
    assert result["lacking"] == ["db2 is not a member yet", "there is no synchronous standby"]
