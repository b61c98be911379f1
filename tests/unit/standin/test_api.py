"""The endpoints, called as clients call them."""

import base64
import json

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client, override_settings
from zerver.lib import actions
from zerver.models import Attachment, Stream, Subscription, UserMessage


class Api:
    """An API client of one user, which encodes fields as the `zulip` package does."""

    def __init__(self, user=None, *, api_key: str | None = None) -> None:
        token = f"{user.email}:{api_key or user.api_key}" if user else ""
        headers = {"authorization": "Basic " + base64.b64encode(token.encode()).decode()} if user else {}
        self.client = Client(headers=headers)

    def __call__(self, method: str, path: str, status: int = 200, **fields):
        data = {name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()}
        response = getattr(self.client, method)(f"/api/v1/{path}", data)
        assert response.status_code == status, response.content
        self.headers = response.headers
        return response.json()


@pytest.fixture
def ann(people) -> Api:
    return Api(people[0])


@pytest.fixture
def ben(people) -> Api:
    return Api(people[1])


def notices(published: list) -> list[dict]:
    """The events for Tornado."""
    return [event for queue, event in published if queue == "notify_tornado"]


def test_server_settings_need_no_user(people):
    answer = Api()("get", "server_settings")
    assert answer["result"] == "success"
    assert answer["zulip_version"]
    assert answer["realm_name"] == "Test"


def test_server_without_realm(database):
    assert Api()("get", "server_settings", 404)["code"] == "NONEXISTENT_SUBDOMAIN"


def test_profile_and_headers(ann):
    assert ann("get", "users/me")["email"] == "ann@example.com"
    assert ann.headers["X-RateLimit-Limit"] == "50"
    assert ann.headers["X-RateLimit-Remaining"] == "49"
    assert int(ann.headers["X-RateLimit-Reset"]) > 1_000_000_000


def test_no_credentials(people):
    api = Api()
    assert api("get", "users/me", 401)["code"] == "UNAUTHORIZED"
    assert api.headers["WWW-Authenticate"] == 'Basic realm="zulip"'


@pytest.mark.parametrize("key", ["x" * 32, "short"])
def test_wrong_key(people, key):
    assert Api(people[0], api_key=key)("get", "users/me", 401)["code"] == "INVALID_API_KEY"


def test_key_of_somebody_else(people):
    assert Api(people[0], api_key=people[1].api_key)("get", "users/me", 401)["code"] == "INVALID_API_KEY"


def test_deactivation_is_seen_through_the_cache(people, ann):
    ann("get", "users/me")
    people[0].is_active = False
    people[0].save()
    assert ann("get", "users/me", 401)["code"] == "USER_DEACTIVATED"
    people[0].realm.deactivated = True
    people[0].realm.save()
    people[0].save()
    assert ann("get", "users/me", 401)["code"] == "REALM_DEACTIVATED"


def test_rate_limit(ann):
    for _ in range(50):
        ann("get", "users/me")
    answer = ann("get", "users/me", 429)
    assert answer["code"] == "RATE_LIMIT_HIT"
    assert float(ann.headers["Retry-After"]) == pytest.approx(answer["retry-after"], abs=0.01)


def test_fetch_api_key(people, published):
    answer = Api()("post", "fetch_api_key", username="ANN@example.com", password="ann-password")
    assert answer["api_key"] == people[0].api_key
    assert [event["to"] for queue, event in published if queue == "email_senders"] == [["ann@example.com"]]


def test_wrong_passwords_are_counted(people):
    api = Api()
    for _ in range(5):
        assert api("post", "fetch_api_key", 401, username="a@b.c", password="x")["code"] == "AUTHENTICATION_FAILED"
    assert api("post", "fetch_api_key", 429, username="a@b.c", password="x")["code"] == "RATE_LIMIT_HIT"


def test_unknown_addresses_and_methods(ann):
    assert ann("get", "nothing", 404)["result"] == "error"
    assert ann("put", "messages", 405)["allowed_methods"] == ["GET", "POST"]


def test_unknown_parameters_are_reported(ann):
    assert ann("get", "users", zzz="1")["ignored_parameters_unsupported"] == ["zzz"]
    assert "ignored_parameters_unsupported" not in ann("get", "users")


def test_a_failure_is_an_answer(ann, monkeypatch):
    monkeypatch.setattr("zerver.views.messages.send_message", lambda *_, **__: 1 / 0)
    fields = {"type": "stream", "to": "general", "topic": "t", "content": "x"}
    assert ann("post", "messages", 500, **fields)["code"] == "INTERNAL_SERVER_ERROR"


def test_channel_message_reaches_subscribers(people, ann, published):
    published.clear()
    answer = ann(
        "post", "messages", type="stream", to="General", topic="t", content="**hi**", queue_id="q", local_id="1"
    )
    (notice,) = notices(published)
    assert notice["event"]["message"]["id"] == answer["id"]
    assert notice["event"]["message"]["rendered_content"] == "<p><strong>hi</strong></p>"
    assert (notice["event"]["sender_queue_id"], notice["event"]["local_id"]) == ("q", "1")
    assert {user["id"] for user in notice["users"]} == {people[0].id, people[1].id}


def test_direct_message_by_address_or_id(people, ann, ben, published):
    first = ann("post", "messages", type="private", to=["BEN@example.com"], content="one")
    second = ben("post", "messages", type="direct", to=[people[0].id], content="two")
    found = ann("get", "messages", anchor="newest", num_before=9, num_after=0, narrow=[["dm", "ben@example.com"]])
    assert [m["id"] for m in found["messages"]] == [first["id"], second["id"]]
    assert {p["email"] for p in found["messages"][0]["display_recipient"]} == {"ann@example.com", "ben@example.com"}
    mails = [event["user_id"] for queue, event in published if queue == "missedmessage_emails"]
    assert mails == [people[1].id, people[0].id]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"type": "stream", "to": "nowhere", "topic": "t", "content": "x"}, "STREAM_DOES_NOT_EXIST"),
        ({"type": "stream", "to": "99999", "topic": "t", "content": "x"}, "STREAM_DOES_NOT_EXIST"),
        ({"type": "private", "to": "nobody@example.com", "content": "x"}, "BAD_REQUEST"),
        ({"type": "other", "to": "general", "content": "x"}, "REQUEST_VARIABLE_INVALID"),
        ({"type": "stream", "to": "general", "topic": "t"}, "REQUEST_VARIABLE_MISSING"),
        ({"type": "stream", "to": "general", "topic": "t", "content": " "}, "BAD_REQUEST"),
    ],
)
def test_refused_messages(ann, fields, code):
    assert ann("post", "messages", 400, **fields)["code"] == code


@pytest.fixture
def history(people, ann) -> list[int]:
    """Six messages in two topics."""
    return [
        ann("post", "messages", type="stream", to="general", topic=f"t{n % 2}", content=f"message {n}")["id"]
        for n in range(6)
    ]


def test_windows(ben, history):
    def ids(anchor, before, after, **fields):
        answer = ben("get", "messages", anchor=anchor, num_before=before, num_after=after, **fields)
        return [m["id"] for m in answer["messages"]], answer["found_oldest"], answer["found_newest"]

    assert ids("newest", 2, 0) == (history[4:], False, True)
    assert ids("newest", 9, 0) == (history, True, True)
    assert ids("oldest", 0, 2) == (history[:2], False, False)
    assert ids(history[2], 1, 1) == (history[1:4], False, False)
    assert ids(history[2], 1, 1, include_anchor=False) == ([history[1], history[3]], False, False)
    assert ids("newest", 9, 0, narrow=[["topic", "t1"]])[0] == history[1::2]
    assert ids("newest", 9, 0, narrow=[["channel", "general"], ["-topic", "t1"]])[0] == history[::2]
    assert ids("newest", 9, 0, narrow=[["search", "message 3"]])[0] == [history[3]]
    assert ids("newest", 9, 0, narrow=[{"operator": "sender", "operand": "ann@example.com"}])[0] == history


def test_first_unread_and_flags(ben, history, published):
    published.clear()
    assert ben("post", "messages/flags", messages=history[:3], op="add", flag="read")["messages"] == history[:3]
    assert notices(published)[0]["event"]["messages"] == history[:3]
    answer = ben("get", "messages", anchor="first_unread", num_before=0, num_after=0)
    assert answer["anchor"] == history[3]
    ben("post", "messages/flags", messages=history[:1], op="add", flag="starred")
    message = ben("get", f"messages/{history[0]}")["message"]
    assert message["flags"] == ["read", "starred"]
    ben("post", "messages/flags", messages=history[:1], op="remove", flag="read")
    assert ben("get", f"messages/{history[0]}")["message"]["flags"] == ["starred"]


@pytest.mark.parametrize("narrow", [[["what", "x"]], [["stream", "nowhere"]], ["x"], [["is", "odd"]]])
def test_bad_narrows(ann, narrow):
    answer = ann("get", "messages", 400, anchor="newest", num_before=1, num_after=0, narrow=narrow)
    assert answer["code"] == "BAD_NARROW"


def test_anchor_is_required_and_checked(ann):
    assert ann("get", "messages", 400, num_before=1, num_after=0)["code"] == "REQUEST_VARIABLE_MISSING"
    answer = ann("get", "messages", 400, anchor="x", num_before=1, num_after=0)
    assert answer["code"] == "REQUEST_VARIABLE_INVALID"


def test_channels(people, ann, ben, published):
    answer = ann("post", "users/me/subscriptions", subscriptions=[{"name": "new"}], principals=["ben@example.com"])
    assert answer["subscribed"] == {str(people[1].id): ["new"]}
    again = ann("post", "users/me/subscriptions", subscriptions=[{"name": "NEW"}], principals=[people[1].id])
    assert again["already_subscribed"] == {str(people[1].id): ["new"]}
    assert [s["name"] for s in ben("get", "users/me/subscriptions")["subscriptions"]] == ["general", "new"]
    assert [s["name"] for s in ann("get", "streams")["streams"]] == ["general", "new"]
    published.clear()
    assert ben("delete", "users/me/subscriptions?subscriptions=[%22new%22]")["removed"] == ["new"]
    assert [queue for queue, _ in published].count("deferred_work") == 1


def test_private_channels_are_closed(people, ann, ben):
    ann("post", "users/me/subscriptions", subscriptions=[{"name": "secret"}], invite_only=True)
    ann("post", "messages", type="stream", to="secret", topic="t", content="x")
    ben("post", "messages", 400, type="stream", to="secret", topic="t", content="x")
    narrow = [["stream", "secret"]]
    assert (
        ben("get", "messages", 400, anchor="newest", num_before=1, num_after=0, narrow=narrow)["code"] == "BAD_NARROW"
    )
    assert "secret" not in [s["name"] for s in ben("get", "streams")["streams"]]
    ben("post", "users/me/subscriptions", 400, subscriptions=[{"name": "secret"}])


def test_register_asks_tornado(people, ann, monkeypatch):
    asked = []

    def post(url, fields):
        asked.append((url, fields))
        return {"queue_id": "q1"}

    monkeypatch.setattr("zerver.lib.events._post", post)
    answer = ann("post", "register", event_types=["message"], fetch_event_types=["realm_user", "subscription"])
    assert (answer["queue_id"], answer["last_event_id"], answer["max_message_id"]) == ("q1", -1, -1)
    assert [user["email"] for user in answer["realm_users"]] == ["ann@example.com", "ben@example.com"]
    assert answer["subscriptions"][0]["subscribers"] == [people[0].id, people[1].id]
    assert "unread_msgs" not in answer
    ((url, fields),) = asked
    assert url == "http://127.0.0.1:9800/api/internal/events"
    assert (fields["user_id"], fields["event_types"]) == (people[0].id, ["message"])


def test_register_without_tornado(ann, monkeypatch):
    def refuse(url, fields):
        raise ConnectionRefusedError

    monkeypatch.setattr("zerver.lib.events._post", refuse)
    monkeypatch.setattr("zerver.lib.events.time.sleep", lambda _: None)
    assert ann("post", "register", 500)["result"] == "error"


def test_unread_state_is_grouped(people, ann, ben, history, monkeypatch):
    monkeypatch.setattr("zerver.lib.events._post", lambda url, fields: {"queue_id": "q"})
    direct = ann("post", "messages", type="private", to=["ben@example.com"], content="x")["id"]
    unread = ben("post", "register", event_types=["update_message_flags"])["unread_msgs"]
    assert unread["count"] == 7
    assert unread["pms"] == [{"sender_id": people[0].id, "other_user_id": people[0].id, "unread_message_ids": [direct]}]
    assert {stream["topic"]: stream["unread_message_ids"] for stream in unread["streams"]} == {
        "t0": history[::2],
        "t1": history[1::2],
    }


def test_uploads_are_served_to_those_who_may_see_them(people, ann, ben, tmp_path):
    with override_settings(LOCAL_UPLOADS_DIR=str(tmp_path), MAX_FILE_UPLOAD_SIZE=1):
        upload = SimpleUploadedFile("../naïve file.txt", b"content")
        answer = ann.client.post("/api/v1/user_uploads", {"/any/name.txt": upload}).json()
        path_id = answer["url"].removeprefix("/user_uploads/")
        stored = tmp_path / "files" / path_id
        assert stored.read_bytes() == b"content"
        assert stored.stat().st_mode & 0o777 == 0o644
        assert [path.name for path in stored.parent.iterdir()] == [stored.name]

        assert ben.client.get(answer["url"]).status_code == 404
        assert Client().get(answer["url"]).status_code == 401
        ann("post", "messages", type="private", to=["ben@example.com"], content=f"see {answer['url']}.")
        served = ben.client.get(answer["url"])
        assert served.headers["X-Accel-Redirect"] == f"/internal/local/uploads/{path_id}"
        temporary = ben("get", f"user_uploads/{path_id}")["url"]
        assert Client().get(temporary).headers["X-Accel-Redirect"] == f"/internal/local/uploads/{path_id}"
        assert Client().get("/user_uploads/temporary/forged/x").status_code == 403

        big = SimpleUploadedFile("big", b"x" * (1024 * 1024 + 1))
        assert ann.client.post("/api/v1/user_uploads", {"f": big}).status_code == 413
        assert ann.client.post("/api/v1/user_uploads").json()["result"] == "error"
    assert Attachment.objects.count() == 1


def test_browser_needs_session_and_token(people):
    browser = Client(enforce_csrf_checks=True)
    assert browser.get("/").headers["Location"] == "/login/?next=/"
    assert browser.get("/json/users/me").json()["code"] == "UNAUTHORIZED"
    browser.get("/login/", secure=True)
    token = browser.cookies["__Host-csrftoken"].value
    fields = {"username": "ann@example.com", "password": "wrong", "csrfmiddlewaretoken": token}
    headers = {"referer": "https://testserver/login/"}
    assert b"incorrect" in browser.post("/login/", fields, secure=True, headers=headers).content
    fields["password"] = "ann-password"
    assert browser.post("/login/", fields, secure=True, headers=headers).headers["Location"] == "/"
    assert browser.cookies["__Host-sessionid"]["secure"]
    assert b"Ann" in browser.get("/", secure=True).content
    assert browser.get("/json/users/me").json()["email"] == "ann@example.com"
    message = {"type": "stream", "to": '["general"]', "topic": "t", "content": "hi"}
    assert browser.post("/json/messages", message, secure=True, headers=headers).json()["code"] == "CSRF_FAILED"
    token = browser.cookies["__Host-csrftoken"].value
    answer = browser.post("/json/messages", message, secure=True, headers={**headers, "x-csrftoken": token})
    assert answer.json()["result"] == "success"


def test_log_in_at_a_published_port(people):
    """The server before this one has to pass on the name that the browser used with its port."""
    where = {"HTTP_HOST": "testserver:8443", "HTTP_ORIGIN": "https://testserver:8443"}
    browser = Client(enforce_csrf_checks=True)
    page = browser.get("/login/", secure=True, **where).content
    assert b'<link rel="icon" href="data:,">' in page  # or browsers ask for /favicon.ico, which is an error
    token = browser.cookies["__Host-csrftoken"].value
    fields = {"username": "ann@example.com", "password": "ann-password", "csrfmiddlewaretoken": token}
    assert browser.post("/login/", fields, secure=True, **where).headers["Location"] == "/"
    fields = {"csrfmiddlewaretoken": browser.cookies["__Host-csrftoken"].value}
    evil = {**where, "HTTP_ORIGIN": "https://evil.example.com"}
    assert browser.post("/logout/", fields, secure=True, **evil).status_code == 403
    assert browser.post("/logout/", fields, secure=True, **where).headers["Location"] == "/login/"
    assert browser.get("/", secure=True, **where).headers["Location"] == "/login/?next=/"


def test_health(people, monkeypatch, redis_stub):
    monkeypatch.setattr("zerver.lib.queue.publisher.check", lambda: None)
    monkeypatch.setattr("zerver.views.health.get_redis_client", lambda: type("R", (), {"ping": lambda self: True})())
    assert Client().get("/health").json() == {"result": "success", "msg": ""}

    def refuse():
        raise ConnectionRefusedError

    monkeypatch.setattr("zerver.lib.queue.publisher.check", refuse)
    answer = Client().get("/health")
    assert (answer.status_code, answer.json()["code"]) == (500, "SERVER_NOT_READY")


def test_leaving_a_channel_keeps_its_messages(people, ben, history):
    stream = Stream.objects.get(name="general")
    actions.unsubscribe([stream], people[1])
    assert not Subscription.objects.get(user=people[1], stream=stream).active
    assert UserMessage.objects.filter(user=people[1]).count() == len(history)
