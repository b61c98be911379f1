"""memcached with SASL, and what is kept there."""

import logging
from collections.abc import Callable
from typing import Any

import bmemcached
from bmemcached.exceptions import MemcachedException
from django.core.cache import cache
from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache

from zerver.models import UserProfile

logger = logging.getLogger(__name__)


class MemcachedCache(BaseCache):
    """A Django cache that does without memcached while it is away: the database is where the truth is."""

    def __init__(self, location: str, params: dict[str, Any]) -> None:
        super().__init__(params)
        # The client keeps a connection per thread by itself.
        self._client = bmemcached.Client([location], **params["OPTIONS"], socket_timeout=2)

    def _try(self, operation: Callable[..., Any], *args: Any, otherwise: Any = None) -> Any:
        try:
            return operation(*args)
        except (MemcachedException, OSError) as error:
            logger.warning("memcached: %s", error)
            return otherwise

    def _expiry(self, timeout: Any) -> int:
        timeout = self.default_timeout if timeout is DEFAULT_TIMEOUT else timeout
        # memcached: 0 is for ever; Django: 0 is not at all, None is for ever.
        return 0 if timeout is None else max(int(timeout), 1)

    def get(self, key: str, default: Any = None, version: int | None = None) -> Any:
        value = self._try(self._client.get, self.make_and_validate_key(key, version))
        return default if value is None else value

    def set(self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> None:
        self._try(self._client.set, self.make_and_validate_key(key, version), value, self._expiry(timeout))

    def add(self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        full_key = self.make_and_validate_key(key, version)
        return bool(self._try(self._client.add, full_key, value, self._expiry(timeout), otherwise=False))

    def touch(self, key: str, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        value = self.get(key, version=version)
        if value is None:
            return False
        self.set(key, value, timeout, version)
        return True

    def delete(self, key: str, version: int | None = None) -> bool:
        return bool(self._try(self._client.delete, self.make_and_validate_key(key, version), otherwise=False))

    def clear(self) -> None:
        self._try(self._client.flush_all)


def user_by_api_key(api_key: str) -> UserProfile | None:
    """The owner of an API key, from the cache when it is there."""
    cache_key = f"user_profile_by_api_key:{api_key}"
    user = cache.get(cache_key)
    if user is None:
        user = UserProfile.objects.select_related("realm").filter(api_key=api_key).first()
        if user is not None:
            cache.set(cache_key, user)
    return user


def forget_user(user: UserProfile) -> None:
    """Drop what the cache knows of a user; called after each change."""
    cache.delete(f"user_profile_by_api_key:{user.api_key}")
