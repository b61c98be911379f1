"""`runtornado ADDRESS:PORT`: one shard of event queues."""

import asyncio
import logging
import os
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from zerver.tornado.server import serve


class Command(BaseCommand):
    help = "Hold the event queues of a shard until SIGTERM."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("addrport", help="address and port to listen on, such as 127.0.0.1:9800")

    def handle(self, *_: Any, addrport: str, **__: Any) -> None:
        address, _, port = addrport.rpartition(":")
        asyncio.run(serve(address or "127.0.0.1", int(port)))
        # Everything is saved. Clients wait for the next process, not for this interpreter to take itself apart.
        logging.shutdown()
        os._exit(0)
