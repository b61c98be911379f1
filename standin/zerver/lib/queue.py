"""RabbitMQ: durable queues, persistent messages, confirmed publishing, manual acknowledgement."""

import json
import logging
import os
import threading
from collections.abc import Callable
from typing import Any

import pika
from django.conf import settings
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError

logger = logging.getLogger(__name__)

BROKER_ERRORS = (AMQPError, OSError)


def connect() -> pika.BlockingConnection:
    """A new connection. Without heartbeats: an idle Django process does not get to answer them."""
    return pika.BlockingConnection(
        pika.ConnectionParameters(
            host=settings.RABBITMQ_HOST,
            port=settings.RABBITMQ_PORT,
            virtual_host=settings.RABBITMQ_VHOST,
            credentials=pika.PlainCredentials(settings.RABBITMQ_USERNAME, settings.RABBITMQ_PASSWORD),
            heartbeat=0,
            blocked_connection_timeout=10,
            socket_timeout=5,
            stack_timeout=10,
            tcp_options={"TCP_KEEPIDLE": 60},
        )
    )


class Publisher:
    """This process's connection for publishing, opened when first needed and again when it was lost."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: pika.BlockingConnection | None = None
        self._channel: BlockingChannel | None = None
        self._declared: set[str] = set()
        self._pid = 0

    def publish(self, queue: str, event: dict[str, Any]) -> None:
        """Return when the broker has the event. One retry hides a broker that was restarted since the last event."""
        body = json.dumps(event).encode()
        properties = pika.BasicProperties(delivery_mode=2, content_type="application/json")
        with self._lock:
            for final in (False, True):
                try:
                    channel = self._open_channel()
                    if queue not in self._declared:
                        channel.queue_declare(queue, durable=True)
                        self._declared.add(queue)
                    channel.basic_publish("", queue, body, properties, mandatory=True)
                    return
                except BROKER_ERRORS:
                    self._close()
                    if final:
                        raise

    def check(self) -> None:
        """Raise unless the broker answers."""
        with self._lock:
            for final in (False, True):
                try:
                    self._open_channel()
                    self._connection.process_data_events()  # notices a connection that was cut while idle
                    if self._connection.is_open:
                        return
                    raise AMQPError("the connection was closed")
                except BROKER_ERRORS:
                    self._close()
                    if final:
                        raise

    def _open_channel(self) -> BlockingChannel:
        if self._pid != os.getpid():  # a fork must not share its parent's socket
            self._connection = self._channel = None
            self._declared.clear()
            self._pid = os.getpid()
        if self._channel is None or not self._channel.is_open:
            self._close()
            self._connection = connect()
            self._channel = self._connection.channel()
            self._channel.confirm_delivery()
        return self._channel

    def _close(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        self._declared.clear()
        try:
            if connection is not None and connection.is_open:
                connection.close()
        except BROKER_ERRORS:
            logger.debug("RabbitMQ: the lost connection did not close cleanly")


publisher = Publisher()


class Consumer:
    """Hands each event of a queue to a function, and acknowledges it when the function returns."""

    FIRST_DELAY, MAX_DELAY = 0.5, 10.0

    def __init__(
        self, queue: str, handler: Callable[[dict[str, Any]], None], stop: threading.Event, prefetch: int = 1
    ) -> None:
        self.queue, self.handler, self.stop, self.prefetch = queue, handler, stop, prefetch
        self._delay = self.FIRST_DELAY

    def run(self) -> None:
        """Consume until told to stop, through any loss of the broker. What was not acknowledged comes again."""
        while not self.stop.is_set():
            try:
                self._consume()
            except BROKER_ERRORS as error:
                if self.stop.is_set():
                    return
                logger.warning("%s: lost RabbitMQ (%r), trying again in %.1f s", self.queue, error, self._delay)
                self.stop.wait(self._delay)
                self._delay = min(self._delay * 2, self.MAX_DELAY)

    def _consume(self) -> None:
        connection = connect()
        try:
            channel = connection.channel()
            channel.queue_declare(self.queue, durable=True)
            channel.basic_qos(prefetch_count=self.prefetch)
            logger.info("%s: consuming", self.queue)
            self._delay = self.FIRST_DELAY
            for method, _, body in channel.consume(self.queue, inactivity_timeout=0.5):
                if self.stop.is_set():
                    return
                if method is None:
                    if not connection.is_open or not channel.is_open:
                        raise AMQPError("the broker ended the subscription")
                    continue
                self.handler(json.loads(body))
                channel.basic_ack(method.delivery_tag)
            if not self.stop.is_set():
                raise AMQPError("the broker ended the subscription")
        finally:
            if connection.is_open:
                connection.close()
