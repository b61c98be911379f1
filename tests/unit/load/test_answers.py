"""What the load makes of the answers that the real client reports."""

from __future__ import annotations

import json
import socket
import threading
from typing import Any

import pytest
import requests
import zulip

from tests.load import answers
from tests.load.answers import of_body, of_call, of_exception

ERROR = {"result": "error", "msg": "No."}


@pytest.mark.parametrize(
    ("body", "status", "outcome"),
    [
        ({"result": "success", "id": 1}, 200, "ok"),
        ({**ERROR, "code": "BAD_REQUEST"}, 400, "refused"),
        ({**ERROR, "code": "UNAUTHORIZED"}, 401, "refused"),
        ({**ERROR, "code": "INTERNAL"}, 500, "unknown"),
        ({**ERROR, "code": "BAD_REQUEST"}, None, "unknown"),
        ({"result": "http-error", "status_code": 502, "msg": "Unexpected"}, 502, "unknown"),
        ({"result": "http-error", "status_code": 503, "msg": "Unexpected"}, None, "unknown"),
        ({"result": "http-error", "status_code": 404, "msg": "Unexpected"}, 404, "refused"),
        ({"result": "http-error", "status_code": 200, "msg": "a page"}, 200, "unknown"),
        ({}, 200, "unknown"),
        ({**ERROR, "code": "RATE_LIMIT_HIT"}, 429, "limited"),
        ({**ERROR, "code": "RATE_LIMIT_HIT"}, None, "limited"),
        ({"result": "http-error", "status_code": 429, "msg": "nginx"}, 429, "limited"),
        ({**ERROR, "code": "BAD_EVENT_QUEUE_ID", "queue_id": "1:2"}, 400, "requeued"),
    ],
)
def test_bodies(body: dict[str, Any], status: int | None, outcome: str):
    answer = of_body(body, status)
    assert answer.outcome == outcome
    assert answer.ok == (outcome == "ok") == (not answer.error)


def test_an_error_names_status_code_and_text():
    assert of_body({**ERROR, "code": "BAD_REQUEST"}, 400).error == "400 BAD_REQUEST: No."
    assert of_body({"result": "http-error", "status_code": 502}, 502).error == "502 without JSON"


@pytest.fixture
def client(zulip_server, state):
    """The PyPI client, which has talked to the fake server."""
    return zulip.Client(email="a@example.com", api_key="k", site=zulip_server[1], retry_on_errors=False)


def call(client: Any):
    client.ensure_session()
    statuses: list[int] = []
    client.session.hooks["response"] = [lambda response, **_: statuses.append(response.status_code)]
    return of_call(client.get_profile, lambda: statuses[-1] if statuses else None)


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        ((502, "<html>Bad gateway</html>"), "unknown"),
        ((500, json.dumps(ERROR)), "unknown"),
        ((403, json.dumps(ERROR)), "refused"),
        ((429, json.dumps({**ERROR, "code": "RATE_LIMIT_HIT"})), "limited"),
        ("hang up", "unknown"),
    ],
)
def test_the_real_client_with_a_server_that_misbehaves_once(zulip_server, client, fault: Any, outcome: str):
    zulip_server[0].faults["GET users/me"].append(fault)
    assert call(client).outcome == outcome
    assert call(client).outcome == "ok"


def test_a_connection_that_nobody_accepts_was_never_sent(client):
    client.session.close()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        client.base_url = f"http://127.0.0.1:{unused.getsockname()[1]}/api/"
        answer = call(client)
    assert answer.outcome == "refused"
    assert "Connection refused" in answer.error


def test_an_answer_that_never_comes_is_unknown_and_named(client):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client.base_url = f"http://127.0.0.1:{silent.getsockname()[1]}/api/"
        answer = of_call(lambda: client.call_endpoint("users/me", "GET", timeout=0.2), lambda: None)
    assert answer.outcome == "unknown"
    assert "timed out" in answer.error


def test_an_answer_that_breaks_off_is_unknown(client):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def half() -> None:
            connection, _ = server.accept()
            connection.recv(65536)
            connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"result": "succ')
            connection.close()

        thread = threading.Thread(target=half)
        thread.start()
        client.base_url = f"http://127.0.0.1:{server.getsockname()[1]}/api/"
        answer = call(client)
        thread.join()
    assert answer.outcome == "unknown"


def test_a_handshake_that_breaks_is_unknown(client):
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=lambda: server.accept()[0].close())
        thread.start()
        client.base_url = f"https://127.0.0.1:{server.getsockname()[1]}/api/"
        answer = call(client)
        thread.join()
    assert answer.outcome == "unknown"


def test_texts_of_errors_can_be_counted():
    def fail(path: str) -> str:
        try:
            requests.get(f"http://127.0.0.1:1/{path}", timeout=1)
        except requests.RequestException as error:
            return of_exception(error).error
        raise AssertionError

    assert fail("a") == fail("b?c=d")
    assert of_exception(ValueError("no")).outcome == answers.UNKNOWN
