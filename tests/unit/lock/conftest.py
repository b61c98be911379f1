"""An etcd that knows the calls of the lock."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


class Etcd(ThreadingHTTPServer):
    """Keys with leases. `lose` answers of transactions get lost after they were done; `between` runs before one."""

    daemon_threads = True

    def __init__(self) -> None:
        self.keys: dict[str, dict[str, Any]] = {}
        self.leases: dict[int, int] = {}
        self.revision, self.lose, self.calls = 100, 0, []
        self.between: Any = None
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def record(self, key: str) -> dict[str, Any] | None:
        entry = self.keys.get(base64.b64encode(key.encode()).decode())
        return json.loads(base64.b64decode(entry["value"])) if entry else None

    def put(self, key: str, value: str, lease: int) -> None:
        self.revision += 1
        created = self.keys.get(key, {}).get("create_revision", str(self.revision))
        self.keys[key] = {
            "key": key,
            "value": value,
            "create_revision": created,
            "mod_revision": str(self.revision),
            "lease": str(lease),
        }

    def revoke(self, lease: int) -> None:
        self.leases.pop(lease, None)
        self.keys = {key: entry for key, entry in self.keys.items() if int(entry["lease"]) != lease}

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        self.calls.append(path)
        if path == "/v3/kv/range":
            return {"kvs": [self.keys[body["key"]]]} if body["key"] in self.keys else {}
        if path == "/v3/lease/grant":
            self.revision += 1
            self.leases[self.revision] = int(body["TTL"])
            return {"ID": str(self.revision), "TTL": body["TTL"]}
        if path == "/v3/lease/revoke":
            if int(body["ID"]) not in self.leases:
                return None
            self.revoke(int(body["ID"]))
            return {}
        if path == "/v3/lease/timetolive":
            return {"TTL": str(self.leases.get(int(body["ID"]), -1))}
        assert path == "/v3/kv/txn"
        if self.between:
            between, self.between = self.between, None
            between()
        for compare in body["compare"]:
            entry = self.keys.get(compare["key"], {})
            field = {"CREATE": ("create_revision", "createRevision"), "MOD": ("mod_revision", "modRevision")}
            have, wanted = field[compare["target"]]
            if str(entry.get(have, "0")) != str(compare[wanted]):
                return {}
        for request in body["success"]:
            if "requestPut" in request:
                put = request["requestPut"]
                assert int(put["lease"]) in self.leases
                self.put(put["key"], put["value"], int(put["lease"]))
            else:
                self.keys.pop(request["requestDeleteRange"]["key"], None)
        return {"succeeded": True}


class Handler(BaseHTTPRequestHandler):
    server: Etcd

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = self.server.answer(self.path, body)
        if self.path == "/v3/kv/txn" and self.server.lose:
            self.server.lose -= 1
            self.connection.close()
            return
        data = json.dumps(answer if answer is not None else {"error": "not found"}).encode()
        self.send_response(200 if answer is not None else 404)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def etcd():
    server = Etcd()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()
