"""`deliver_scheduled_emails`: a singleton."""

from typing import Any

from django.core.management.base import BaseCommand

from zerver.lib.scheduler import deliver_scheduled_email, run_scheduler


class Command(BaseCommand):
    help = "Send scheduled mail when it is due, until SIGTERM."

    def handle(self, *_: Any, **__: Any) -> None:
        run_scheduler(deliver_scheduled_email)
