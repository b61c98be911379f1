"""`checkconfig`."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

REQUIRED = ("EXTERNAL_HOST", "ZULIP_ADMINISTRATOR", "SECRET_KEY", "SHARED_SECRET", "AVATAR_SALT", "RABBITMQ_PASSWORD")


class Command(BaseCommand):
    help = "Check that the settings which have no default are there."
    # The checks of Django want a database; this command is for before there is one.
    requires_system_checks: list[str] = []

    def handle(self, *_: Any, **__: Any) -> None:
        if missing := [name for name in REQUIRED if not getattr(settings, name)]:
            raise CommandError(f"Error: You must set {', '.join(missing)} in /etc/zulip.")
