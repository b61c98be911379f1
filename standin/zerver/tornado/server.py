"""The life of a Tornado process."""

import asyncio
import contextlib
import logging
import signal
import threading
from pathlib import Path
from typing import Any

from django.conf import settings
from tornado.httpserver import HTTPServer

from zerver.lib.queue import Consumer
from zerver.tornado.application import make_application
from zerver.tornado.event_queue import Registry
from zerver.tornado.sharding import notify_queue

logger = logging.getLogger(__name__)


async def _tick(registry: Registry) -> None:
    while True:
        await asyncio.sleep(1)
        registry.tick()


async def serve(address: str, port: int) -> None:
    """Load the queues, serve until SIGTERM, save the queues."""
    loop = asyncio.get_running_loop()
    registry = Registry()
    dump = Path(settings.TORNADO_QUEUE_DIR) / f"event_queues.{port}.json"
    registry.load(dump)

    terminated, stop_consuming = asyncio.Event(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, terminated.set)

    async def deliver(notice: dict[str, Any]) -> None:
        registry.deliver(notice)

    def handle(notice: dict[str, Any]) -> None:
        # Queues belong to the event loop's thread. The notice is acknowledged when it is in them.
        asyncio.run_coroutine_threadsafe(deliver(notice), loop).result()

    consumer = Consumer(notify_queue(port), handle, stop_consuming, prefetch=100)
    consuming = threading.Thread(target=consumer.run, name="notices", daemon=True)
    server = HTTPServer(make_application(registry, port), xheaders=True)
    server.listen(port, address)
    consuming.start()
    ticking = asyncio.create_task(_tick(registry))
    logger.info("Tornado listens on %s:%d", address, port)

    await terminated.wait()
    # Clients are served while the consumer comes to its end, so that the port is closed as briefly as can be.
    stop_consuming.set()
    await asyncio.to_thread(consuming.join, 5)
    ticking.cancel()
    server.stop()
    registry.dump(dump)
    for queue in registry.queues.values():
        queue.release()
    await asyncio.sleep(0.2)  # for the last answers to be written
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(server.close_all_connections(), 1)
    logger.info("Tornado on port %d saved %d event queues and stops", port, len(registry.queues))
