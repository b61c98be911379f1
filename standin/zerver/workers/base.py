"""How a queue worker runs: an event is done, or kept aside because it can never be done, and only then acknowledged."""

import json
import logging
import threading
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from django.conf import settings
from django.db import InterfaceError, InternalError, OperationalError, close_old_connections, connection

from zerver.lib.queue import BROKER_ERRORS, Consumer

logger = logging.getLogger(__name__)

# The database is away, restarting, failing over, or for the moment read-only. None of this is the event's fault.
TRANSIENT = (OperationalError, InterfaceError, InternalError, *BROKER_ERRORS)
MAX_DELAY = 10.0


class QueueWorker(ABC):
    """Works through the queue whose name is `queue`."""

    queue: ClassVar[str]

    def __init__(self, stop: threading.Event) -> None:
        self.stop = stop

    @abstractmethod
    def work(self, event: dict[str, Any]) -> None:
        """Do one event. It may be done twice when the first time could not be acknowledged."""

    def handle(self, event: dict[str, Any]) -> None:
        """Do one event, waiting for the database as long as it takes."""
        delay = 0.5
        while True:
            try:
                close_old_connections()
                self.work(event)
                return
            except TRANSIENT as error:
                connection.close()
                logger.warning("%s: %s; trying again in %.1f s", self.queue, str(error).strip(), delay)
                if self.stop.wait(delay):
                    # Unacknowledged, the event goes back to the broker with the connection.
                    raise ConnectionAbortedError("told to stop") from error
                delay = min(delay * 2, MAX_DELAY)
            except Exception:
                logger.exception("%s: cannot do %s", self.queue, event)
                self._keep_aside(event)
                return

    def _keep_aside(self, event: dict[str, Any]) -> None:
        directory = Path(settings.LOG_DIR) / "queue_error"
        try:
            directory.mkdir(exist_ok=True)
            with (directory / f"{self.queue}.errors").open("a") as stream:
                stream.write(json.dumps(event) + "\n")
        except OSError as error:
            logger.error("%s: the event could not be kept: %s", self.queue, error)

    def run(self) -> None:
        """Consume until told to stop."""
        Consumer(self.queue, self.handle, self.stop).run()
        connection.close()
