"""Makes the stand-in server importable, and replaces what it talks to."""

import os
import sys
from pathlib import Path

import pytest

STANDIN = Path(__file__).resolve().parents[3] / "standin"
sys.path.insert(0, str(STANDIN))
os.environ["STANDIN_SETTINGS"] = str(Path(__file__).with_name("settings.py"))
os.environ["DJANGO_SETTINGS_MODULE"] = "zproject.settings"

import django  # noqa: E402

django.setup()


class RedisStub:
    """The commands of Redis that counting needs, under a clock that tests move."""

    def __init__(self) -> None:
        self.now = 0.0
        self.values: dict[str, int] = {}
        self.expiry: dict[str, float] = {}
        self._results: list = []

    def pipeline(self, transaction: bool = True) -> "RedisStub":
        return self

    def __enter__(self) -> "RedisStub":
        self._results = []
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def incr(self, key: str) -> None:
        if self.expiry.get(key, self.now + 1) <= self.now:
            self.delete(key)
        self.values[key] = self.values.get(key, 0) + 1
        self._results.append(self.values[key])

    def expire(self, key: str, seconds: int, nx: bool = False) -> None:
        if not nx or key not in self.expiry:
            self.expiry[key] = self.now + seconds
        self._results.append(True)

    def pttl(self, key: str) -> None:
        self._results.append(int((self.expiry[key] - self.now) * 1000))

    def execute(self) -> list:
        return self._results

    def delete(self, key: str) -> None:
        self.values.pop(key, None)
        self.expiry.pop(key, None)


@pytest.fixture
def redis_stub(monkeypatch: pytest.MonkeyPatch) -> RedisStub:
    """Redis in memory."""
    stub = RedisStub()
    monkeypatch.setattr("zerver.lib.rate_limit.get_redis_client", lambda: stub)
    return stub


@pytest.fixture(scope="session")
def _migrated() -> None:
    from django.core.management import call_command

    call_command("migrate", verbosity=0)


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> list:
    """What would have gone to RabbitMQ, as (queue, event)."""
    events: list = []
    monkeypatch.setattr("zerver.lib.queue.publisher.publish", lambda queue, event: events.append((queue, event)))
    return events


@pytest.fixture
def database(_migrated: None, published: list, redis_stub: RedisStub):
    """An empty database, and nothing in the mail."""
    from django.core import mail
    from django.core.cache import cache
    from django.core.management import call_command

    mail.outbox = []
    yield
    call_command("flush", verbosity=0, interactive=False)
    cache.clear()


@pytest.fixture
def people(database: None):
    """A realm with two people in the channel `general`."""
    from zerver.lib import actions
    from zerver.models import Realm, Role

    realm = Realm.objects.create(name="Test")
    ann = actions.create_user(realm, "Ann@example.com", "Ann", "ann-password", role=Role.OWNER)
    ben = actions.create_user(realm, "ben@example.com", "Ben", "ben-password")
    stream, _ = actions.get_or_create_stream(ann, "general")
    actions.subscribe([stream], [ann, ben])
    return ann, ben, stream
