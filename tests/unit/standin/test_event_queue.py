"""Event queues under a clock that only the tests move."""

import pytest
from zerver.lib.exceptions import JsonableError
from zerver.tornado.event_queue import HEARTBEAT_RANGE, IDLE_TIMEOUT, MAX_LIFESPAN, Registry


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry(clock: Clock) -> Registry:
    return Registry(clock)


def notice(*users: int, notice_id: str | None = None, **event) -> dict:
    return {"notice_id": notice_id, "event": event, "users": [{"id": user} for user in users]}


def message(user: int, *, flags=(), **extra) -> dict:
    content = {
        "id": 5,
        "type": "stream",
        "stream_id": 3,
        "display_recipient": "Denmark",
        "subject": "castle",
        "sender_id": 8,
        "sender_email": "ann@example.com",
        "content": "**hi**",
        "content_type": "text/x-markdown",
        "rendered_content": "<p>hi</p>",
    }
    event = {"type": "message", "message": content, **extra}
    return {"event": event, "users": [{"id": user, "flags": list(flags)}]}


def test_events_are_numbered_and_go_to_their_users_only(registry):
    mine, other = registry.allocate({"user_id": 1}), registry.allocate({"user_id": 2})
    registry.deliver(notice(1, type="presence"))
    registry.deliver(notice(1, 2, type="typing"))
    assert [(e["id"], e["type"]) for e in mine.events] == [(0, "presence"), (1, "typing")]
    assert [(e["id"], e["type"]) for e in other.events] == [(0, "typing")]


def test_event_types_filter(registry):
    queue = registry.allocate({"user_id": 1, "event_types": ["typing"]})
    registry.deliver(notice(1, type="presence"))
    assert not queue.events


def test_a_notice_that_the_broker_repeats_counts_once(registry):
    queue = registry.allocate({"user_id": 1})
    for _ in range(2):
        registry.deliver(notice(1, notice_id="n1", type="typing"))
    assert len(queue.events) == 1


@pytest.mark.parametrize(
    ("narrow", "delivered"),
    [
        ([], True),
        ([["stream", "denmark"]], True),
        ([["channel", 3]], True),
        ([["stream", "other"]], False),
        ([["stream", "Denmark"], ["topic", "castle"]], True),
        ([["topic", "moat"]], False),
        ([["sender", "ann@example.com"]], True),
        ([{"operator": "sender", "operand": 8, "negated": True}], False),
        ([["is", "dm"]], False),
    ],
)
def test_narrow_filters_messages(registry, narrow, delivered):
    queue = registry.allocate({"user_id": 1, "narrow": narrow})
    registry.deliver(message(1))
    assert bool(queue.events) is delivered


def test_message_content_is_as_the_queue_wants_it(registry):
    html = registry.allocate({"user_id": 1, "apply_markdown": True})
    text = registry.allocate({"user_id": 1, "apply_markdown": False})
    registry.deliver(message(1, flags=["read"], sender_queue_id=html.id, local_id="7.1"))
    assert html.events[0]["message"]["content"] == "<p>hi</p>"
    assert html.events[0]["local_message_id"] == "7.1"
    assert text.events[0]["message"]["content"] == "**hi**"
    assert "local_message_id" not in text.events[0]
    assert text.events[0]["flags"] == ["read"]
    assert "rendered_content" not in text.events[0]["message"]


def test_acknowledging_prunes(registry):
    queue = registry.allocate({"user_id": 1})
    for _ in range(3):
        registry.deliver(notice(1, type="typing"))
    queue.acknowledge(-1)
    assert len(queue.events) == 3
    queue.acknowledge(1)
    assert [e["id"] for e in queue.events] == [2]
    queue.acknowledge(1)
    with pytest.raises(JsonableError, match="An event newer than 0 has already been pruned"):
        queue.acknowledge(0)
    with pytest.raises(JsonableError, match="Event 3 was not in this queue"):
        queue.acknowledge(3)


def test_an_event_ends_the_long_poll(registry, clock):
    queue, calls = registry.allocate({"user_id": 1}), []
    queue.hold(lambda: calls.append(1), clock())
    assert queue.is_waited_for
    registry.deliver(notice(1, type="typing"))
    registry.deliver(notice(1, type="typing"))
    assert calls == [1]
    assert not queue.is_waited_for


def test_a_second_long_poll_ends_the_first(registry, clock):
    queue, calls = registry.allocate({"user_id": 1}), []
    queue.hold(lambda: calls.append("first"), clock())
    queue.hold(lambda: calls.append("second"), clock())
    assert calls == ["first"]
    queue.push({"type": "typing"})
    assert calls == ["first", "second"]


def test_a_client_that_hung_up_is_not_called(registry, clock):
    queue, calls = registry.allocate({"user_id": 1}), []

    def waiter() -> None:
        calls.append(1)

    queue.hold(waiter, clock())
    queue.abandon(waiter, clock())
    queue.push({"type": "typing"})
    assert calls == []
    assert len(queue.events) == 1


def test_heartbeat_comes_between_45_and_55_seconds(registry, clock):
    queue = registry.allocate({"user_id": 1, "event_types": ["message"]})
    queue.hold(lambda: None, clock())
    clock.now += HEARTBEAT_RANGE[0] - 1
    registry.tick()
    assert not queue.events
    clock.now += HEARTBEAT_RANGE[1] - HEARTBEAT_RANGE[0] + 1
    registry.tick()
    assert queue.events[0] == {"type": "heartbeat", "id": 0}
    assert not queue.is_waited_for


def test_no_heartbeat_without_a_long_poll(registry, clock):
    queue = registry.allocate({"user_id": 1})
    clock.now += HEARTBEAT_RANGE[1] + 1
    registry.tick()
    assert not queue.events


def test_idle_queues_die_and_waiting_ones_live(registry, clock):
    idle, waiting = registry.allocate({"user_id": 1}), registry.allocate({"user_id": 1})
    waiting.hold(lambda: None, clock())
    for _ in range(IDLE_TIMEOUT + 1):
        clock.now += 1
        registry.tick()
        if not waiting.is_waited_for:
            waiting.hold(lambda: None, clock())
    assert list(registry.queues) == [waiting.id]
    with pytest.raises(JsonableError) as error:
        registry.get(idle.id, 1)
    assert error.value.code == "BAD_EVENT_QUEUE_ID"
    assert error.value.msg == f"Bad event queue id: {idle.id}"
    assert error.value.body()["queue_id"] == idle.id


def test_lifespan_is_kept_within_bounds(registry):
    assert registry.allocate({"user_id": 1, "lifespan_secs": 1}).lifespan == IDLE_TIMEOUT
    assert registry.allocate({"user_id": 1, "lifespan_secs": 3600}).lifespan == 3600
    assert registry.allocate({"user_id": 1, "lifespan_secs": 10**9}).lifespan == MAX_LIFESPAN


def test_queues_of_others_are_refused(registry):
    queue = registry.allocate({"user_id": 1})
    with pytest.raises(JsonableError, match="not authorized"):
        registry.get(queue.id, 2)


def test_removing_ends_the_poll_and_delivery(registry, clock):
    queue, calls = registry.allocate({"user_id": 1}), []
    queue.hold(lambda: calls.append(1), clock())
    registry.remove(queue)
    registry.deliver(notice(1, type="typing"))
    assert calls == [1]
    assert not queue.events


def test_a_dump_survives_a_restart_once(registry, clock, tmp_path):
    path = tmp_path / "event_queues.9800.json"
    queue = registry.allocate({"user_id": 1, "event_types": ["typing"], "lifespan_secs": 3600})
    for _ in range(3):
        registry.deliver(notice(1, type="typing"))
    queue.acknowledge(0)
    registry.dump(path)
    assert path.stat().st_mode & 0o777 == 0o600

    second = Registry(clock)
    second.load(path)
    restored = second.get(queue.id, 1)
    assert [e["id"] for e in restored.events] == [1, 2]
    assert restored.lifespan == 3600
    second.deliver(notice(1, type="typing"))
    second.deliver(notice(1, type="presence"))
    assert [e["id"] for e in restored.events] == [1, 2, 3]
    restored.acknowledge(0)

    after_crash = Registry(clock)
    after_crash.load(path)
    assert not after_crash.queues


@pytest.mark.parametrize("content", ["", "[{}]", "{", '[{"id": 1}]'])
def test_a_broken_dump_does_not_stop_the_start(registry, tmp_path, content):
    path = tmp_path / "event_queues.9800.json"
    path.write_text(content)
    registry.load(path)
    assert not registry.queues
