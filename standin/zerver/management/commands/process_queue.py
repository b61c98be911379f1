"""`process_queue`: workers for one queue, or for several in one process."""

import threading
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from zerver.lib.stopping import stop_event
from zerver.workers.queues import WORKERS


class Command(BaseCommand):
    help = "Work through queues until SIGTERM."

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._failed: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        which = parser.add_mutually_exclusive_group(required=True)
        which.add_argument("--queue_name", metavar="QUEUE", help="the one queue")
        which.add_argument("--multi_threaded", nargs="+", metavar="QUEUE", help="several queues, a thread each")
        which.add_argument("--list", action="store_true", help="print the names of all queues")

    def handle(self, *_: Any, queue_name: str | None, multi_threaded: list[str] | None, list: bool, **__: Any) -> None:
        if list:
            self.stdout.write("\n".join(sorted(WORKERS)))
            return
        names = multi_threaded or [queue_name or ""]
        if unknown := sorted(set(names) - set(WORKERS)):
            raise CommandError(f"No such queue: {', '.join(unknown)}. There are: {', '.join(sorted(WORKERS))}")
        stop = stop_event()
        threads = [threading.Thread(target=self._run, args=(name, stop), name=name) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._failed:
            raise CommandError(f"Workers failed: {', '.join(self._failed)}")

    def _run(self, name: str, stop: threading.Event) -> None:
        """A worker that fails ends its process, so that all are started afresh together."""
        try:
            WORKERS[name](stop).run()
        except BaseException:
            self._failed.append(name)
            stop.set()
            raise
