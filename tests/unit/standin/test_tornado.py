"""Tornado's HTTP side, with authentication replaced."""

import json
import urllib.parse

import pytest
from django.test import override_settings
from tornado.testing import AsyncHTTPTestCase
from zerver.tornado import application
from zerver.tornado.event_queue import Registry


class TornadoTest(AsyncHTTPTestCase):
    """User 1 asks, at port 9800."""

    def get_app(self):
        self.registry = Registry()
        self.queue = self.registry.allocate({"user_id": 1})
        return application.make_application(self.registry, 9800)

    def setUp(self):
        patch = pytest.MonkeyPatch()

        async def authenticate(request, *, by_session):
            return 1

        patch.setattr(application, "authenticate", authenticate)
        self.addCleanup(patch.undo)
        super().setUp()

    def ask(self, method="GET", path="/api/v1/events", body=None, **fields):
        query = urllib.parse.urlencode(fields)
        response = self.fetch(f"{path}?{query}", method=method, body=body)
        return response, json.loads(response.body or b"{}")

    def test_events_that_are_there_come_at_once(self):
        self.queue.push({"type": "typing"})
        response, answer = self.ask(queue_id=self.queue.id, last_event_id=-1)
        assert response.code == 200
        assert answer["events"] == [{"type": "typing", "id": 0}]
        assert answer["queue_id"] == self.queue.id
        assert response.headers["X-RateLimit-Limit"] == "50"
        assert self.ask(queue_id=self.queue.id, last_event_id=0, dont_block="true")[1]["events"] == []

    def test_a_poll_is_held_until_an_event(self):
        self.io_loop.call_later(0.1, self.queue.push, {"type": "typing"})
        _, answer = self.ask(queue_id=self.queue.id, last_event_id=-1)
        assert [event["type"] for event in answer["events"]] == ["typing"]

    def test_unknown_queue(self):
        response, answer = self.ask(queue_id="nope", last_event_id=-1)
        assert response.code == 400
        assert (answer["code"], answer["msg"]) == ("BAD_EVENT_QUEUE_ID", "Bad event queue id: nope")

    def test_missing_queue(self):
        assert self.ask()[1]["code"] == "REQUEST_VARIABLE_MISSING"

    def test_delete(self):
        assert self.ask("DELETE", queue_id=self.queue.id)[1]["result"] == "success"
        assert self.ask(queue_id=self.queue.id)[1]["code"] == "BAD_EVENT_QUEUE_ID"

    def test_other_methods(self):
        assert self.ask("POST", body="")[0].code == 405
        assert self.ask("OPTIONS")[0].code == 204

    def test_limit(self):
        for _ in range(50):
            self.ask(queue_id=self.queue.id, dont_block="true")
        response, answer = self.ask(queue_id=self.queue.id, dont_block="true")
        assert (response.code, answer["code"]) == (429, "RATE_LIMIT_HIT")

    def test_another_shard(self):
        with override_settings(SHARDING={"chat.example.com": [9800, 9801]}):
            response, _ = self.ask(queue_id="q", last_event_id=3)
            assert response.headers["X-Accel-Redirect"] == (
                "/internal/tornado/9801/api/v1/events?queue_id=q&last_event_id=3"
            )
            response, _ = self.ask("DELETE", path="/json/events", queue_id="q")
            assert response.code == 403
            response, _ = self.ask("DELETE", queue_id="q")
            assert response.headers["X-Accel-Redirect"] == "/internal/tornado/9801/api/v1/events/delete?queue_id=q"

    def test_a_delete_from_another_shard(self):
        assert self.ask(path="/api/v1/events/delete", queue_id=self.queue.id)[1]["result"] == "success"
        assert not self.registry.queues

    def test_allocation_needs_the_secret(self):
        fields = {"user_id": 2, "event_types": ["message"], "secret": "wrong"}
        response = self.fetch("/api/internal/events", method="POST", body=json.dumps(fields))
        assert response.code == 403
        fields["secret"] = "not a secret either"
        answer = json.loads(self.fetch("/api/internal/events", method="POST", body=json.dumps(fields)).body)
        assert self.registry.get(answer["queue_id"], 2).event_types == ["message"]
