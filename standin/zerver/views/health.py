"""/health: whether this host's parts answer. It tells neither whether the database can be written nor of Tornado."""

import logging
import secrets

from django.core.cache import cache
from django.db import DatabaseError, InterfaceError
from django.db.migrations.recorder import MigrationRecorder
from django.http import HttpRequest, HttpResponseBase, JsonResponse
from redis import RedisError

from zerver.lib.exceptions import JsonableError
from zerver.lib.queue import BROKER_ERRORS, publisher
from zerver.lib.rate_limit import get_redis_client
from zerver.lib.rest import json_error

logger = logging.getLogger(__name__)


def not_ready(msg: str) -> JsonableError:
    """Something that this server needs is missing."""
    return JsonableError(msg, "SERVER_NOT_READY", 500)


def check_database() -> None:
    """The database answers and was migrated at least once."""
    try:
        migrated = MigrationRecorder.Migration.objects.exists()
    except (DatabaseError, InterfaceError) as error:
        raise not_ready("Cannot query postgresql") from error
    if not migrated:
        raise not_ready("Database is empty")


def check_rabbitmq() -> None:
    """The broker answers."""
    try:
        publisher.check()
    except BROKER_ERRORS as error:
        raise not_ready("Cannot connect to RabbitMQ") from error


def check_redis() -> None:
    """Redis answers."""
    try:
        get_redis_client().ping()
    except RedisError as error:
        raise not_ready("Cannot query redis") from error


def check_memcached() -> None:
    """What is written to memcached can be read again."""
    key, value = f"health_check_{secrets.token_hex(16)}", secrets.token_hex(16)
    cache.set(key, value, 10)
    if cache.get(key) != value:
        raise not_ready("Cannot write to memcached")
    cache.delete(key)


def health(request: HttpRequest) -> HttpResponseBase:
    """200 when all four answer."""
    try:
        for check in (check_database, check_rabbitmq, check_redis, check_memcached):
            check()
    except JsonableError as error:
        logger.warning("health: %s (%r)", error.msg, error.__cause__)
        return json_error(error)
    return JsonResponse({"result": "success", "msg": ""})
