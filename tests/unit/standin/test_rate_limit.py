"""Limits, counted in Redis and in memory alike."""

import pytest
from django.test import override_settings
from zerver.lib.exceptions import JsonableError
from zerver.lib.rate_limit import MemoryStore, RedisStore, check_limit, clear_limit


class Memory:
    """A memory store that is moved like the stub of Redis."""

    def __init__(self) -> None:
        self.now = 0.0
        self.store = MemoryStore(lambda: self.now)


@pytest.fixture(params=["redis", "memory"])
def counted(request, redis_stub):
    """A store and what moves its clock."""
    if request.param == "redis":
        return RedisStore(), redis_stub
    memory = Memory()
    return memory.store, memory


RULES = {"api_by_user": [(60, 3)], "two": [(10, 2), (60, 3)]}


@override_settings(RATE_LIMITING_RULES=RULES)
def test_the_window_begins_with_the_first_request(counted):
    store, clock = counted
    clock.now = 100
    assert [check_limit(store, "api_by_user", "1").remaining for _ in range(3)] == [2, 1, 0]
    clock.now = 130
    with pytest.raises(JsonableError) as error:
        check_limit(store, "api_by_user", "1")
    assert error.value.status == 429
    assert error.value.body()["code"] == "RATE_LIMIT_HIT"
    assert error.value.body()["retry-after"] == pytest.approx(30, abs=0.01)
    assert float(error.value.headers["Retry-After"]) == pytest.approx(30, abs=0.01)
    assert error.value.headers["X-RateLimit-Remaining"] == "0"
    clock.now = 160.01
    assert check_limit(store, "api_by_user", "1").remaining == 2


@override_settings(RATE_LIMITING_RULES=RULES)
def test_entities_are_counted_apart(counted):
    store, _ = counted
    for _ in range(3):
        check_limit(store, "api_by_user", "1")
    assert check_limit(store, "api_by_user", "2").remaining == 2


@override_settings(RATE_LIMITING_RULES=RULES)
def test_every_rule_holds_and_the_longest_wait_counts(counted):
    store, clock = counted
    clock.now = 100
    for _ in range(2):
        check_limit(store, "two", "1")
    with pytest.raises(JsonableError) as error:
        check_limit(store, "two", "1")
    assert error.value.data["retry-after"] == pytest.approx(10)
    with pytest.raises(JsonableError) as error:
        check_limit(store, "two", "1")
    assert error.value.data["retry-after"] == pytest.approx(60)


@override_settings(RATE_LIMITING_RULES=RULES)
def test_clearing(counted):
    store, _ = counted
    for _ in range(3):
        check_limit(store, "api_by_user", "1")
    clear_limit(store, "api_by_user", "1")
    assert check_limit(store, "api_by_user", "1").remaining == 2


@override_settings(RATE_LIMITING=False)
def test_the_switch(counted):
    store, _ = counted
    assert check_limit(store, "api_by_user", "1") is None


def test_memory_forgets_windows_that_ended():
    memory = Memory()
    memory.store.SWEEP_AT = 2
    memory.store.hit("a", 10)
    memory.store.hit("b", 10)
    memory.now = 20
    memory.store.hit("c", 10)
    assert list(memory.store._windows) == ["c"]
