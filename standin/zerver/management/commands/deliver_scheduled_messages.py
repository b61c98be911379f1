"""`deliver_scheduled_messages`: a singleton."""

from typing import Any

from django.core.management.base import BaseCommand

from zerver.lib.scheduler import deliver_scheduled_message, run_scheduler


class Command(BaseCommand):
    help = "Send scheduled messages when they are due, until SIGTERM."

    def handle(self, *_: Any, **__: Any) -> None:
        run_scheduler(deliver_scheduled_message)
