#!/usr/bin/python
"""Converge the dynamic configuration of a Patroni cluster, and tell how its members are."""

from __future__ import annotations

DOCUMENTATION = r"""
module: patroni_config
short_description: Converge the dynamic configuration of a Patroni cluster, and tell how its members are
description:
  - Talks to one member's REST API. The dynamic configuration belongs to the cluster, so one member is enough.
  - Only the keys in O(settings) are managed; all others are left alone. What was applied is remembered in the
    configuration itself, under the key
    C(zulip_ha), which Patroni keeps and ignores. It changes together with the values in one request, whoever runs
    this from wherever, so there is
    no moment at which the two disagree.
  - A managed key that somebody changed since (C(patronictl edit-config)) is I(drift), see O(local_edits).
  - A key that is no longer in O(settings) is removed, unless somebody changed it since.
  - Can wait until the cluster has a leader and given members run, and returns who leads and who waits for a restart.
options:
  url:
    description: Address of the member's REST API.
    type: str
    default: https://127.0.0.1:8008
  ca_file:
    description: Certificates that sign the API's certificate. Without it the system's.
    type: path
  cert_file:
    description: Client certificate.
    type: path
  key_file:
    description: Its key.
    type: path
  username:
    description: User of the API, for changes.
    type: str
  password:
    description: Password of the API.
    type: str
  settings:
    description: >-
      Keys of the dynamic configuration and their values, nested as in C(patronictl show-config). Without it
      nothing is changed.
    type: dict
  local_edits:
    description: >-
      V(stop) fails before anything is changed; V(keep) leaves drift and reports it; V(overwrite) replaces it.
    type: str
    choices: [stop, keep, overwrite]
    default: stop
  variables:
    description: >-
      The variable that an operator should use for a key, by the beginning of the key (C(postgresql/parameters),
      empty for all others). Named in the message.
    type: dict
    default: {}
  members:
    description: >-
      Names of the members to wait for. They are to run, follow the leader's timeline, and lag by at most
      O(max_lag) bytes.
    type: list
    elements: str
    default: []
  wait_for:
    description: >-
      V(members) waits for O(members) and fails without them; V(leader) is content with a leader and returns what else
      is missing in RV(lacking).
    type: str
    choices: [leader, members]
    default: members
  settled:
    description: Names of members that are also to be free of a pending restart.
    type: list
    elements: str
    default: []
  sync_standby:
    description: Whether, with two or more O(members), one of them has to be a synchronous standby.
    type: bool
    default: true
  max_lag:
    description: Bytes that a waited-for replica may lag.
    type: int
    default: 1048576
  timeout:
    description: >-
      Seconds to wait for the API, the leader and the members. V(0) looks once, and returns what is there, without
      complaint.
    type: int
    default: 120
  pause:
    description: >-
      Seconds to wait before members are looked at, for Patroni to notice what a change means. Also taken when
      O(settings) change.
    type: int
    default: 0
attributes:
  check_mode:
    description: >-
      Predicts, and does not wait. Without an answer it predicts no change, for the first member brings the
      configuration along.
    support: full
  diff_mode:
    description: Shows the keys that change.
    support: full
author: zulip-ha
"""

EXAMPLES = r"""
- name: PostgreSQL | Converge the cluster's configuration
  patroni_config:
    ca_file: /etc/zulip-ha/pki/ca.pem
    cert_file: /etc/zulip-ha/pki/node.pem
    key_file: /etc/zulip-ha/pki/node.key
    username: patroni
    password: "{{ postgresql_restapi_password }}"
    settings:
      ttl: 20
      postgresql: {parameters: {max_connections: 300}}
    members: [db1, db2]
  register: __postgresql_cluster
"""

RETURN = r"""
leader:
  description: Name of the leader, empty without one.
  returned: success
  type: str
members:
  description: The members as C(GET /cluster) lists them.
  returned: success
  type: list
  elements: dict
lacking:
  description: What is missing, one phrase each.
  returned: success
  type: list
  elements: str
pending_restart:
  description: Names of the members that wait for a restart.
  returned: success
  type: list
  elements: str
keys:
  description: Keys that changed, each with its values C(before) and C(after).
  returned: success
  type: dict
drift:
  description: Keys that were changed by hand.
  returned: success, and on failure because of them
  type: list
  elements: dict
"""

import base64
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.basic import AnsibleModule

LEDGER = "zulip_ha"
# Patroni needs a second after a reload to ask PostgreSQL what waits for a restart, and a turn of its loop to publish
# it.
SETTLE_SECONDS = 5
RUNNING = ("running", "streaming")

ARGUMENT_SPEC = {
    "url": {"type": "str", "default": "https://127.0.0.1:8008"},
    "ca_file": {"type": "path"},
    "cert_file": {"type": "path"},
    "key_file": {"type": "path", "no_log": False},
    "username": {"type": "str"},
    "password": {"type": "str", "no_log": True},
    "settings": {"type": "dict"},
    "local_edits": {"type": "str", "choices": ["stop", "keep", "overwrite"], "default": "stop"},
    "variables": {"type": "dict", "default": {}},
    "members": {"type": "list", "elements": "str", "default": []},
    "wait_for": {"type": "str", "choices": ["leader", "members"], "default": "members"},
    "settled": {"type": "list", "elements": "str", "default": []},
    "sync_standby": {"type": "bool", "default": True},
    "max_lag": {"type": "int", "default": 1048576},
    "timeout": {"type": "int", "default": 120},
    "pause": {"type": "int", "default": 0},
}


class PatroniError(Exception):
    """Told to the operator in its own words."""


class NotYetError(Exception):
    """The API is not there, or has no answer yet."""


# ---- the three-way comparison ----------------------------------------------------------------------------------------


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return leaves by path, `postgresql/parameters/max_connections`. Empty mappings hold nothing."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            leaves.update(flatten(value, f"{prefix}{key}/"))
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def nest(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tree of which `flatten` makes these leaves."""
    tree: dict[str, Any] = {}
    for path, value in leaves.items():
        *parents, key = path.split("/")
        branch = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[key] = value
    return tree


def same(one: Any, other: Any) -> bool:
    """Compare as Patroni does: 300 and "300" mean the same, true and 1 do not."""
    if isinstance(one, bool) or isinstance(other, bool) or one is None or other is None:
        return type(one) is type(other) and one == other
    return one == other or str(one) == str(other)


@dataclass
class Plan:
    changes: dict[str, Any] = field(default_factory=dict)
    applied: dict[str, Any] = field(default_factory=dict)
    drift: list[dict[str, Any]] = field(default_factory=list)


def make_plan(current: Mapping[str, Any], wanted: Mapping[str, Any], local_edits: str) -> Plan:
    """Compare what is wanted, what is there and what was applied last; a change to None removes the key."""
    ours = flatten(current.get(LEDGER, {}).get("applied", {}))
    there = flatten({key: value for key, value in current.items() if key != LEDGER})
    plan = Plan()
    for path, value in flatten(wanted).items():
        found, known = there.get(path), ours.get(path)
        if same(found, value):
            plan.applied[path] = value
            continue
        if not same(found, known):
            plan.drift.append({"key": path, "found": found, "applied": known, "wanted": value})
            if local_edits != "overwrite":
                if path in ours:
                    plan.applied[path] = known
                continue
        plan.changes[path] = plan.applied[path] = value
    for path, known in ours.items():
        if path not in flatten(wanted) and path in there and same(there[path], known):
            plan.changes[path] = None
    return plan


def make_patch(current: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """Return the body for PATCH /config, empty if the configuration and the memory of it are right already."""
    ours = flatten(current.get(LEDGER, {}).get("applied", {}))
    memory = {path: value for path, value in plan.applied.items() if not same(ours.get(path), value)}
    memory.update({path: None for path in ours if path not in plan.applied})
    patch = nest(plan.changes)
    if memory:
        patch[LEDGER] = {"applied": nest(memory)}
    return patch


def show(value: Any) -> str:
    return "nothing" if value is None else json.dumps(value)


def variable_for(key: str, variables: Mapping[str, str]) -> str:
    """Return the variable named for the longest beginning of the key."""
    fitting = [prefix for prefix in variables if not prefix or f"{key}/".startswith(f"{prefix}/")]
    return variables[max(fitting, key=len)] if fitting else ""


def drift_message(drift: list[dict[str, Any]], variables: Mapping[str, str]) -> str:
    """One line: what, where, and the ways out."""
    keys = ", ".join(f"{item['key']} ({show(item['found'])}, was {show(item['applied'])})" for item in drift)
    named = list(dict.fromkeys(name for item in drift if (name := variable_for(item["key"], variables))))
    target = f"{' or '.join(named)} in the inventory's 90-local.yml" if named else "the inventory's 90-local.yml"
    return (
        f"Changed by hand in Patroni's configuration since the last run: {keys}. Nothing was changed there. "
        f"Put the change into {target}, or run again with -e local_edits=keep (leave it) or "
        "-e local_edits=overwrite (replace it)."
    )


# ---- the cluster -----------------------------------------------------------------------------------------------------


class Api:
    def __init__(self, params: Mapping[str, Any]) -> None:
        self.url = params["url"].rstrip("/")
        self.headers = {"Content-Type": "application/json"}
        if params["username"]:
            pair = f"{params['username']}:{params['password']}".encode()
            self.headers["Authorization"] = "Basic " + base64.b64encode(pair).decode()
        self.params = params
        self._context: ssl.SSLContext | None = None

    def _tls(self) -> ssl.SSLContext | None:
        if not self.url.startswith("https:"):
            return None
        if not self._context:
            try:
                self._context = ssl.create_default_context(cafile=self.params["ca_file"])
                if self.params["cert_file"]:
                    self._context.load_cert_chain(self.params["cert_file"], self.params["key_file"])
            except OSError as error:
                raise NotYetError(f"the certificates cannot be read: {error}") from error
        return self._context

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Return the answer's JSON."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, headers=self.headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10, context=self._tls()) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            reason = (
                f"{method} {self.url}{path} answered {error.code} {error.read().decode(errors='replace').strip()[:200]}"
            )
            # 409 is somebody else's change in the same moment, 5xx a cluster that has no configuration yet.
            raise (NotYetError if error.code == 409 or error.code >= 500 else PatroniError)(reason) from error
        except (OSError, ValueError) as error:
            raise NotYetError(f"{method} {self.url}{path}: {error}") from error


def leader_of(cluster: Mapping[str, Any]) -> Mapping[str, Any]:
    return next((member for member in cluster["members"] if member["role"] in ("leader", "standby_leader")), {})


def missing(cluster: Mapping[str, Any], params: Mapping[str, Any]) -> list[str]:
    """Return what keeps the cluster from being as it is waited for, one phrase each."""
    leader = leader_of(cluster)
    if leader.get("state") not in RUNNING:
        return ["there is no running leader"]
    members = {member["name"]: member for member in cluster["members"]}
    lacking = []
    for name in params["members"]:
        member = members.get(name, {"state": "not a member yet"})
        if member["state"] not in RUNNING:
            lacking.append(f"{name} is {member['state']}")
        elif name != leader["name"]:
            lag = member.get("lag", "unknown")
            if member.get("timeline") != leader.get("timeline"):
                lacking.append(
                    f"{name} is on timeline {member.get('timeline')}, the leader on {leader.get('timeline')}"
                )
            elif not isinstance(lag, int) or lag > params["max_lag"]:
                lacking.append(f"{name} lags by {lag} bytes")
    roles = {members[name]["role"] for name in params["members"] if name in members}
    if params["sync_standby"] and len(params["members"]) > 1 and not roles & {"sync_standby", "quorum_standby"}:
        lacking.append("there is no synchronous standby")
    lacking += [
        f"{name} waits for a restart" for name in params["settled"] if members.get(name, {}).get("pending_restart")
    ]
    return lacking


class Run:
    def __init__(
        self, params: Mapping[str, Any], check_mode: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.params, self.check_mode, self.clock = params, check_mode, clock
        self.api = Api(params)
        self.patience = 0 if check_mode else params["timeout"]
        self.deadline = clock() + self.patience
        self.warnings: list[str] = []

    def until(self, attempt: Callable[[], Any]) -> Any:
        """Repeat until it does not raise NotYetError; without patience the first failure is passed on."""
        while True:
            try:
                return attempt()
            except NotYetError as error:
                if not self.patience:
                    raise
                if self.clock() >= self.deadline:
                    raise PatroniError(f"Gave up after {self.patience} s: {error}") from error
                time.sleep(1)

    def converge(self) -> tuple[Plan, dict[str, Any]]:
        """Bring the configuration to what is wanted; return the plan and what was there before."""
        current = self.api.call("GET", "/config")
        plan = make_plan(current, self.params["settings"], self.params["local_edits"])
        if plan.drift and self.params["local_edits"] == "stop":
            raise DriftError(drift_message(plan.drift, self.params["variables"]), plan.drift)
        patch = make_patch(current, plan)
        if patch and not self.check_mode:
            self.api.call("PATCH", "/config", patch)
        return plan, flatten(current)

    def healthy(self) -> dict[str, Any]:
        cluster = self.api.call("GET", "/cluster")
        lacking = missing(cluster, self.params)
        content = self.params["wait_for"] == "leader" and leader_of(cluster).get("state") in RUNNING
        if lacking and self.patience and not content:
            raise NotYetError("; ".join(lacking))
        return cluster

    def __call__(self) -> dict[str, Any]:
        plan, before = Plan(), {}
        cluster: dict[str, Any] = {"members": []}
        try:
            if self.params["settings"] is not None:
                plan, before = self.until(self.converge)
            pause = max(self.params["pause"], SETTLE_SECONDS if plan.changes else 0)
            if pause and not self.check_mode:
                time.sleep(pause)
            cluster = self.until(self.healthy)
        except NotYetError:
            # Only without patience: in check mode on a host that is not set up yet, or when just looking.
            pass
        for item in plan.drift:
            done = "overwritten" if self.params["local_edits"] == "overwrite" else "kept"
            self.warnings.append(f"Patroni's {item['key']} was changed to {show(item['found'])} by hand, {done}.")
        keys = {path: {"before": before.get(path), "after": value} for path, value in plan.changes.items()}
        return {
            "changed": bool(keys),
            "keys": keys,
            "drift": plan.drift,
            "leader": leader_of(cluster).get("name", ""),
            "members": cluster["members"],
            "lacking": missing(cluster, self.params),
            "pending_restart": [member["name"] for member in cluster["members"] if member.get("pending_restart")],
            "diff": {
                "before_header": "Patroni's dynamic configuration",
                "after_header": "Patroni's dynamic configuration",
                "before": "".join(f"{path}: {show(item['before'])}\n" for path, item in keys.items()),
                "after": "".join(f"{path}: {show(item['after'])}\n" for path, item in keys.items()),
            },
        }


class DriftError(PatroniError):
    def __init__(self, message: str, drift: list[dict[str, Any]]) -> None:
        super().__init__(message)
        self.drift = drift


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    run = Run(module.params, module.check_mode)
    try:
        result = run()
    except DriftError as error:
        module.fail_json(msg=str(error), drift=error.drift)
    except PatroniError as error:
        module.fail_json(msg=str(error))
    for warning in run.warnings:
        module.warn(warning)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
