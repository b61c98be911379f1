"""A Zulip of a few lines in this process, which the real `zulip.Client` talks to and which can be told to misbehave."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

HANG_UP = "hang up"


class FakeZulip:
    """Messages, event queues and files in memory; `faults` are used up one by one, by `METHOD path`."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.messages: list[dict[str, Any]] = []
        self.queues: dict[str, list[dict[str, Any]]] = {}
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[Any]] = defaultdict(list)
        self.limit = "100000"
        self.registrations = 0
        # What becomes of the n-th message: "forget", "twice", "unseen" (no event), "hang up" (stored, no answer),
        # "idle" (no worker does its job).
        self.fates: dict[int, str] = {}
        self.sent = 0
        self.idle: set[int] = set()
        self.role = 400

    def answer(self, method: str, path: str, given: dict[str, str], raw: bytes) -> Any:
        """Return an answer's JSON, bytes of a file, (status, text), or HANG_UP."""
        with self.changed:
            # None: this one is answered well.
            if self.faults[f"{method} {path}"] and (fault := self.faults[f"{method} {path}"].pop(0)):
                return fault
            match method, path:
                case "GET", "server_settings":
                    return {"zulip_version": "1.0", "zulip_feature_level": 1}
                case "POST", "users/me/subscriptions":
                    return {}
                case "GET", "users" | "users/me":
                    return {"members": [], "email": "ann@example.com", "role": self.role}
                case "POST", "messages":
                    return self._send(given)
                case "POST", "scheduled_messages":
                    # At once: what matters is how often.
                    return {"id": self._send({**given})["id"]}
                case "GET", "messages":
                    return self._read(given)
                case "POST", "register":
                    self.registrations += 1
                    self.queues[f"q{self.registrations}"] = []
                    return {"queue_id": f"q{self.registrations}", "last_event_id": -1}
                case "DELETE", "events":
                    return {}
                case "GET", "events":
                    return self._poll(given["queue_id"], int(given["last_event_id"]))
                case "POST", "user_uploads":
                    content = re.split(rb"\r\n\r\n", raw, maxsplit=1)[1]
                    address = f"/user_uploads/{len(self.files)}"
                    self.files[address] = content[: content.rindex(b"\r\n--")]
                    return {"url": address}
        return (404, json.dumps({"result": "error", "msg": f"no {method} {path}", "code": "NONE"}))

    def _send(self, given: dict[str, str]) -> Any:
        self.sent += 1
        fate = self.fates.get(self.sent, "")
        number = 100 + 10 * self.sent
        message = {"id": number, "content": given["content"], "subject": given["topic"]}
        if fate == "idle":
            self.idle.add(number)
        if fate != "forget":
            self.messages.append(message)
        if fate == "twice":
            self.messages.append({**message, "id": number + 1})
        if fate != "unseen":
            for queue in self.queues.values():
                queue.append({"id": len(queue), "type": "message", "message": message})
        self.changed.notify_all()
        return HANG_UP if fate == HANG_UP else {"id": number}

    def _read(self, given: dict[str, str]) -> Any:
        if given["anchor"] == "newest":
            return {"messages": self.messages[-int(given["num_before"]) :], "found_newest": True}
        after = [one for one in self.messages if one["id"] >= int(given["anchor"])]
        if json.loads(given.get("apply_markdown", "true")):
            after = [self._rendered(one) for one in after]
        # Pages of seven, so that reading on is tested.
        return {"messages": after[:7], "found_newest": len(after) <= 7}

    def _rendered(self, message: dict[str, Any]) -> dict[str, Any]:
        worked = "https://" in message["content"] and message["id"] not in self.idle
        return {**message, "content": message["content"] + ("<div class=message_embed>" if worked else "")}

    def _poll(self, queue: str, last: int) -> Any:
        ends = time.monotonic() + 5
        while time.monotonic() < ends:
            if queue not in self.queues:
                return (400, json.dumps({"result": "error", "msg": "Bad queue", "code": "BAD_EVENT_QUEUE_ID"}))
            if events := self.queues[queue][last + 1 :]:
                return {"events": events}
            self.changed.wait(0.5)
        return {"events": [{"id": last + 1, "type": "heartbeat"}]}

    def drop_queues(self) -> None:
        """Forget all event queues, as a Tornado that was killed."""
        with self.changed:
            self.queues.clear()
            self.changed.notify_all()


class Handler(BaseHTTPRequestHandler):
    """HTTP with connections that are kept."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    zulip: FakeZulip

    def handle_one_request(self) -> None:
        """Serve one request."""
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = urlsplit(self.path)
        if file := self.zulip.files.get(parts.path):
            self.reply(200, file)
            return
        text = parts.query or ("" if b"\r\n\r\n" in raw else raw.decode())
        given = {key: values[-1] for key, values in parse_qs(text).items()}
        answer = self.zulip.answer(str(self.command), parts.path.removeprefix("/api/v1/"), given, raw)
        if answer == HANG_UP:
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        elif isinstance(answer, tuple):
            self.reply(answer[0], answer[1].encode())
        else:
            self.reply(200, json.dumps({"result": "success", "msg": "", **answer}).encode())

    def reply(self, status: int, body: bytes) -> None:
        """Send an answer in one piece."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-RateLimit-Limit", self.zulip.limit)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def zulip_server() -> Iterator[tuple[FakeZulip, str]]:
    """A fake server and its address."""
    fake = FakeZulip()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OwnHandler", (Handler,), {"zulip": fake}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield fake, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    # Threads of kept connections end with their client; waiting for them here would wait for the garbage collector.
    server.socket.close()


@pytest.fixture
def state(zulip_server: tuple[FakeZulip, str], tmp_path: Path) -> Path:
    """The state file of a lab that runs the fake server."""
    ca_file = tmp_path / "ca.pem"
    ca_file.write_text("")
    users = [{"email": f"{name}@example.com", "api_key": "k" * 32, "role": "member"} for name in ("ann", "bob", "cyd")]
    path = tmp_path / "state.json"
    path.write_text(json.dumps({"url": zulip_server[1], "ca_file": str(ca_file), "users": [*users, {"email": "none"}]}))
    return path
