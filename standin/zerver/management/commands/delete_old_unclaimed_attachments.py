"""`delete_old_unclaimed_attachments -f`: a once-only cron."""

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand
from django.utils.timezone import now

from zerver.lib.uploads import delete_attachment
from zerver.models import Attachment


class Command(BaseCommand):
    help = "Delete uploaded files that no message refers to."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("-w", "--weeks", type=int, default=5, help="only files that are at least so old (5)")
        parser.add_argument("-f", "--for-real", action="store_true", help="delete them, instead of naming them")

    def handle(self, *_: Any, weeks: int, for_real: bool, **__: Any) -> None:
        old = Attachment.objects.filter(messages=None, create_time__lt=now() - timedelta(weeks=weeks))
        for attachment in old:
            self.stdout.write(f"{'Deleting' if for_real else 'Would delete'} {attachment.path_id}")
            if for_real:
                delete_attachment(attachment)
