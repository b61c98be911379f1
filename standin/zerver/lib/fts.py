"""Indexes the messages that changed for full-text search. Several copies may run: each takes rows no other holds."""

import logging
import select
import threading

import psycopg
from django.conf import settings

from zerver.lib.stopping import stop_event

logger = logging.getLogger(__name__)

BATCH = 1000
# A notification that got lost, as when a message was sent during a failover, is made up for after this time.
POLL_SECONDS = 10
RETRY_SECONDS = 1

_UPDATE = """
WITH taken AS (
    DELETE FROM fts_update_log WHERE id IN (SELECT id FROM fts_update_log ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED)
    RETURNING message_id
)
UPDATE zerver_message
SET search_tsvector = to_tsvector('english_us_search', subject || ' ' || content)
WHERE id IN (SELECT message_id FROM taken)
"""


def connect() -> psycopg.Connection:
    """A session of its own, since LISTEN needs one that no pooler shares."""
    database = settings.DATABASES["default"]
    return psycopg.connect(
        dbname=database["NAME"],
        user=database["USER"],
        password=database["PASSWORD"],
        host=database["HOST"] or None,
        port=database["PORT"] or None,
        sslmode=database["OPTIONS"].get("sslmode"),
        application_name="process_fts_updates",
        connect_timeout=10,
        keepalives_idle=10,
        autocommit=True,
    )


def update_batch(connection: psycopg.Connection) -> bool:
    """Index some messages; whether there may be more."""
    cursor = connection.execute(_UPDATE, [BATCH])
    if cursor.rowcount:
        logger.info("process_fts_updates: indexed %d messages", cursor.rowcount)
    return cursor.rowcount >= BATCH


def _work(connection: psycopg.Connection, stop: threading.Event) -> None:
    """Index until stopped, the connection breaks, or the database turns out to be a standby."""
    connection.execute("LISTEN fts_update_log")
    while not stop.is_set():
        while update_batch(connection) and not stop.is_set():
            pass
        for _ in range(POLL_SECONDS):
            # A signal interrupts nothing here: waits are short so that stopping is quick.
            readable, _, _ = select.select([connection.fileno()], [], [], 1)
            if stop.is_set():
                return
            if readable:
                for _ in connection.notifies(timeout=0):
                    pass
                break


def _is_standby(connection: psycopg.Connection) -> bool:
    row = connection.execute("SELECT pg_is_in_recovery()").fetchone()
    return bool(row and row[0])


def main() -> None:
    """Run until SIGTERM, across restarts and failovers of the database."""
    stop = stop_event()
    problem = ""
    while not stop.is_set():
        try:
            with connect() as connection:
                if _is_standby(connection):
                    now = "the database is a standby"
                else:
                    logger.info("process_fts_updates: listening")
                    problem = ""
                    _work(connection, stop)
                    continue
        except psycopg.Error as error:
            now = f"lost the database: {error}".strip()
        if now != problem:
            logger.warning("process_fts_updates: %s; waiting", now)
            problem = now
        stop.wait(RETRY_SECONDS)
