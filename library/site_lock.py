#!/usr/bin/python
"""Takes, prolongs and gives back the lock that keeps two runs from changing one site at once."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: site_lock
short_description: Lock the site for one run
description:
  - Keeps one key in the site's etcd, with a lease on it, so that the lock is the same for all controllers and ends by
    itself. Runs on a host that may talk to etcd, with that host's node certificate.
  - A run that has the lock prolongs it by asking again. A run that is gone is followed at once when it was on the same
    controller, where its process can be looked for; the action plugin of the same name does that. From another
    controller it is followed when the lease ends, or by force.
  - The record is replaced in one transaction that fails if it was changed since it was read.
  - A lock that is not got is no failure of the module, so that who asks can tell it from a host that does not answer;
    see C(refused).
options:
  state:
    description: C(held) takes or prolongs the lock, C(free) gives it back if it is this run's.
    type: str
    choices: [held, free]
    default: held
  key:
    description: The key in etcd.
    type: str
    required: true
  endpoints:
    description: URLs of the etcd members. One after the other is asked, until one answers.
    type: list
    elements: str
    required: true
  verb:
    description: What is run.
    type: str
    default: ""
  phase:
    description: What it is about to do, for the line that another run gets.
    type: str
    default: ""
  minutes:
    description: After this time without being prolonged the lock ends by itself.
    type: int
    default: 30
  take:
    description: Take the lock, whoever has it.
    type: bool
    default: false
  expected:
    description: Whether this run has the lock already. If another one has it then, it was taken away.
    type: bool
    default: false
  run:
    description: >-
      Who asks (C(by), C(began)), and what tells runs apart (C(machine), C(boot), C(namespace), C(pid), C(start)).
      Filled by the action plugin.
    type: dict
    default: {}
  dead:
    description: Revision of a record whose run is known to be gone. Filled by the action plugin.
    type: int
    default: 0
  pki:
    description: Folder of the node certificate and of the CA.
    type: path
    default: /etc/zulip-ha/pki
  timeout:
    description: Seconds that one member has to answer.
    type: float
    default: 5
  patience:
    description: Seconds for which all members are asked again when none answers.
    type: float
    default: 0
attributes:
  check_mode:
    support: full
    description: Reads, and refuses where a real run would.
author:
  - zulip-ha (@zulip-ha)
"""

EXAMPLES = r"""
- name: Lock | Take the site
  site_lock:
    key: /zulip-ha/chat/run-lock
    endpoints: ["https://127.0.0.1:2379"]
    verb: upgrade
  delegate_to: db1

- name: Lock | Give the site back
  site_lock:
    state: free
    key: /zulip-ha/chat/run-lock
    endpoints: ["https://127.0.0.1:2379"]
  delegate_to: db1
"""

RETURN = r"""
refused:
  description: Why the lock was not got, in one line; empty when it was.
  returned: always
  type: str
lost:
  description: Whether another run took it away from this one.
  returned: when it was refused
  type: bool
how:
  description: >-
    C(taken), C(prolonged), C(followed) (the run before is dead), C(forced), C(again) (it had ended by itself),
    C(freed), or C(none).
  returned: when it was not refused
  type: str
before:
  description: The record of the run that had the lock, if another had it.
  returned: when etcd answered
  type: dict
revision:
  description: Revision of that record.
  returned: when etcd answered
  type: int
"""

import base64  # noqa: E402
import http.client  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import ssl  # noqa: E402
import time  # noqa: E402
import urllib.parse  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402

IDENTITY = ("machine", "boot", "namespace", "pid", "start")
ATTEMPTS = 5


class LockError(Exception):
    """The lock was not got, in one sentence."""

    def __init__(self, message: str, **result: Any) -> None:
        super().__init__(message)
        self.result = result


class Etcd:
    """The few calls of etcd's JSON gateway that a lock needs. Numbers of 64 bits are texts there."""

    def __init__(self, endpoints: list[str], pki: str, timeout: float, patience: float) -> None:
        self.endpoints, self.pki, self.timeout = list(endpoints), pki, timeout
        self.end = time.monotonic() + patience

    def call(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Ask for as long as we are patient: a member restarts, a leader is elected."""
        while True:
            try:
                return self._round(path, body)
            except LockError:
                if time.monotonic() >= self.end:
                    raise
                time.sleep(1)

    def _round(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Ask one member after the other; the one that answered is the first of the next call."""
        problems = []
        for endpoint in list(self.endpoints):
            try:
                answer = self._ask(endpoint, path, body)
            except (OSError, http.client.HTTPException, ValueError) as error:
                problems.append(f"{endpoint}: {error or type(error).__name__}")
                self.endpoints.append(self.endpoints.pop(0))
                continue
            return answer
        raise LockError(
            f"etcd does not answer, and the lock of the site's runs is kept there ({'; '.join(problems)}): "
            "playbooks/health.yml says more"
        )

    def _ask(self, endpoint: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        url = urllib.parse.urlsplit(endpoint)
        host, port = url.hostname or "", url.port or 2379
        connection: http.client.HTTPConnection
        if url.scheme == "http":
            connection = http.client.HTTPConnection(host, port, timeout=self.timeout)
        else:
            context = ssl.create_default_context(cafile=os.path.join(self.pki, "ca.pem"))
            context.load_cert_chain(os.path.join(self.pki, "node.pem"), os.path.join(self.pki, "node.key"))
            connection = http.client.HTTPSConnection(host, port, timeout=self.timeout, context=context)
        try:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        if response.status == 404 and path.startswith("/v3/lease/"):
            # A lease that is no more.
            return {}
        if response.status != 200:
            raise ValueError(f"HTTP {response.status} {text[:200].decode(errors='replace').strip()}")
        answer = json.loads(text)
        if not isinstance(answer, dict):
            raise ValueError("an answer that is no mapping")
        return answer


class Lock:
    """The key, and what is decided by what stands in it."""

    def __init__(self, etcd: Etcd, key: str, run: dict[str, Any]) -> None:
        self.etcd, self.run = etcd, run
        self.key = base64.b64encode(key.encode()).decode()
        self.revision, self.lease = 0, 0
        self.record: dict[str, Any] | None = None

    def read(self) -> None:
        """Read who has it."""
        entries = self.etcd.call("/v3/kv/range", {"key": self.key}).get("kvs", [])
        self.revision, self.lease, self.record = 0, 0, None
        for entry in entries:
            self.revision, self.lease = int(entry["mod_revision"]), int(entry.get("lease", 0))
            try:
                self.record = dict(json.loads(base64.b64decode(entry.get("value", ""))))
            except (ValueError, TypeError):
                # Somebody wrote there by hand: it counts, and only force takes it away.
                self.record = {}

    @property
    def mine(self) -> bool:
        """Whether this run has it."""
        return self.record is not None and all(self.record.get(name) == self.run.get(name) for name in IDENTITY)

    def seconds_left(self) -> int:
        """Return when it ends by itself; -1 for never."""
        if not self.lease:
            return -1
        return max(0, int(self.etcd.call("/v3/lease/timetolive", {"ID": str(self.lease)}).get("TTL", 0)))

    def write(self, record: dict[str, Any], ttl: int) -> bool:
        """Put a record with a new lease where the one that was read is; False when that has changed meanwhile."""
        lease = int(self.etcd.call("/v3/lease/grant", {"TTL": str(ttl)})["ID"])
        value = base64.b64encode(json.dumps(record, sort_keys=True).encode()).decode()
        put = {"requestPut": {"key": self.key, "value": value, "lease": str(lease)}}
        done = self.etcd.call("/v3/kv/txn", {"compare": [self._unchanged()], "success": [put]}).get("succeeded", False)
        # The lease that nobody needs any more: the new one, or the one that the old record had.
        old, self.lease = (self.lease, lease) if done else (lease, self.lease)
        if old:
            self.etcd.call("/v3/lease/revoke", {"ID": str(old)})
        return bool(done)

    def delete(self) -> bool:
        """Delete the record that was read; False when it has changed meanwhile."""
        request = {"requestDeleteRange": {"key": self.key}}
        done = self.etcd.call("/v3/kv/txn", {"compare": [self._unchanged()], "success": [request]})
        if done.get("succeeded") and self.lease:
            self.etcd.call("/v3/lease/revoke", {"ID": str(self.lease)})
        return bool(done.get("succeeded", False))

    def _unchanged(self) -> dict[str, Any]:
        if self.record is None:
            return {"key": self.key, "target": "CREATE", "result": "EQUAL", "createRevision": "0"}
        return {"key": self.key, "target": "MOD", "result": "EQUAL", "modRevision": str(self.revision)}


def words(record: dict[str, Any]) -> str:
    """Return who has the lock, in words."""
    text = f"{record.get('verb') or 'something'} by {record.get('by') or 'somebody'}"
    text += f" since {record['began']}" if record.get("began") else ""
    text += f", in the phase {record['phase']}" if record.get("phase") else ""
    return text + (f" (process {record['pid']} there)" if record.get("pid") else "")


def refusal(lock: Lock) -> str:
    """Return the one line for a run that comes second."""
    left = lock.seconds_left()
    ends = f"ends by itself in {-(-left // 60)} min" if left >= 0 else "does not end by itself"
    return (
        f"another run is in progress on this site: {words(lock.record or {})}. Wait for it. If it is dead, its lock "
        f"{ends}; -e lock_take=true takes it at once"
    )


def verdict(lock: Lock, *, take: bool, expected: bool, dead: int) -> str:
    """Say how the lock can be had; raise when it cannot."""
    if lock.record is None:
        return "again" if expected else "taken"
    if lock.mine:
        return "prolonged"
    result = {"before": lock.record, "revision": lock.revision}
    if expected:
        raise LockError(
            f"the lock of this run was taken away from it: {words(lock.record)}. This run stops; look at what both "
            "did, then run the verb again",
            lost=True,
            **result,
        )
    if dead and dead == lock.revision:
        return "followed"
    if take:
        return "forced"
    raise LockError(refusal(lock), **result)


def hold(lock: Lock, params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Take or prolong the lock."""
    for _ in range(ATTEMPTS):
        lock.read()
        # In check mode a run never has it.
        expected = params["expected"] and not check_mode
        how = verdict(lock, take=params["take"], expected=expected, dead=params["dead"])
        before = lock.record if lock.record is not None and not lock.mine else {}
        result = {"changed": how != "prolonged", "how": how, "before": before, "revision": lock.revision}
        if check_mode:
            return result
        began = (lock.record or {}).get("began") if lock.mine else None
        record = {**params["run"], "verb": params["verb"], "phase": params["phase"]}
        if lock.write({**record, "began": began or record.get("began", "")}, max(60, params["minutes"] * 60)):
            return result
    raise LockError("the lock of the site's runs changes hands too fast; try again")


def free(lock: Lock, check_mode: bool) -> dict[str, Any]:
    """Give the lock back, if it is this run's."""
    lock.read()
    mine = lock.mine
    if mine and not check_mode:
        lock.delete()
    before = {} if mine or lock.record is None else lock.record
    return {"changed": mine, "how": "freed" if mine else "none", "before": before, "revision": lock.revision}


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["held", "free"], "default": "held"},
            # The name of the key in etcd.
            "key": {"type": "str", "required": True, "no_log": False},
            "endpoints": {"type": "list", "elements": "str", "required": True},
            "verb": {"type": "str", "default": ""},
            "phase": {"type": "str", "default": ""},
            "minutes": {"type": "int", "default": 30},
            "take": {"type": "bool", "default": False},
            "expected": {"type": "bool", "default": False},
            "run": {"type": "dict", "default": {}},
            "dead": {"type": "int", "default": 0},
            "pki": {"type": "path", "default": "/etc/zulip-ha/pki"},
            "timeout": {"type": "float", "default": 5.0},
            "patience": {"type": "float", "default": 0.0},
        },
        supports_check_mode=True,
    )
    params = module.params
    etcd = Etcd(params["endpoints"], params["pki"], params["timeout"], params["patience"])
    lock = Lock(etcd, params["key"], params["run"])
    try:
        freeing = params["state"] == "free"
        result = free(lock, module.check_mode) if freeing else hold(lock, params, module.check_mode)
    except LockError as error:
        result = {"changed": False, "refused": str(error), "lost": False, **error.result}
    except (KeyError, TypeError, ValueError) as error:
        module.fail_json(msg=f"etcd's answer makes no sense: {error!r}")
    module.exit_json(**{"refused": "", **result})


if __name__ == "__main__":
    main()
