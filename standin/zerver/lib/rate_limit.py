"""Counts requests against limits, in Redis, or in memory where a process is the only one to count (Tornado)."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import redis
from django.conf import settings
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from zerver.lib.exceptions import JsonableError, rate_limited


@lru_cache(maxsize=1)
def get_redis_client() -> redis.Redis:
    """This process's connection pool."""
    return redis.Redis(
        host=settings.REDIS_HOST,
        port=settings.REDIS_PORT,
        password=settings.REDIS_PASSWORD or None,
        socket_timeout=5,
        socket_connect_timeout=5,
        health_check_interval=30,
        # Long enough for a restart of Redis, short enough for a health probe.
        retry=Retry(ExponentialBackoff(cap=0.5, base=0.1), retries=3),
    )


class Store(Protocol):
    """Counts hits of a key in windows of time that begin with a window's first hit."""

    def hit(self, key: str, window: int) -> tuple[int, float]:
        """Count one hit; return the hits in this window and the seconds until it ends."""

    def reset(self, key: str) -> None:
        """Forget the key."""


class RedisStore:
    """Shared by all processes of a host."""

    def hit(self, key: str, window: int) -> tuple[int, float]:
        with get_redis_client().pipeline(transaction=True) as pipe:
            pipe.incr(key)
            pipe.expire(key, window, nx=True)
            pipe.pttl(key)
            count, _, milliseconds = pipe.execute()
        return count, milliseconds / 1000

    def reset(self, key: str) -> None:
        get_redis_client().delete(key)


class MemoryStore:
    """Private to one process; keeps windows that ended only until the next sweep."""

    SWEEP_AT = 10_000

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._windows: dict[str, tuple[int, float]] = {}

    def hit(self, key: str, window: int) -> tuple[int, float]:
        now = self._clock()
        count, ends = self._windows.get(key, (0, 0.0))
        if ends <= now:
            if len(self._windows) >= self.SWEEP_AT:
                self._windows = {k: v for k, v in self._windows.items() if v[1] > now}
            count, ends = 0, now + window
        self._windows[key] = (count + 1, ends)
        return count + 1, ends - now

    def reset(self, key: str) -> None:
        self._windows.pop(key, None)


@dataclass
class Usage:
    """What the X-RateLimit headers say."""

    limit: int
    remaining: int
    reset: float

    def headers(self) -> dict[str, str]:
        """As Zulip names them; Reset is the time at which everything is allowed again."""
        return {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(self.remaining),
            "X-RateLimit-Reset": str(int(time.time() + self.reset)),
        }


def _key(domain: str, entity: str, window: int) -> str:
    return f"ratelimit:{domain}:{entity}:{window}"


def check_limit(store: Store, domain: str, entity: str) -> Usage | None:
    """Count a request of `entity`; the tightest rule's usage, None when limits are off. Raises when one is exceeded."""
    if not settings.RATE_LIMITING:
        return None
    tightest: Usage | None = None
    blocked = 0.0
    for window, limit in settings.RATE_LIMITING_RULES[domain]:
        count, reset = store.hit(_key(domain, entity, window), window)
        usage = Usage(limit, max(limit - count, 0), reset)
        if count > limit:
            blocked = max(blocked, reset)
        if tightest is None or usage.remaining < tightest.remaining:
            tightest = usage
    if blocked:
        error: JsonableError = rate_limited(blocked)
        error.headers |= tightest.headers() if tightest else {}
        raise error
    return tightest


def clear_limit(store: Store, domain: str, entity: str) -> None:
    """Start afresh, as after a successful log-in."""
    for window, _ in settings.RATE_LIMITING_RULES[domain]:
        store.reset(_key(domain, entity, window))
