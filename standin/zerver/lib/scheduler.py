"""Things that are due at a time. A row is locked while it is dealt with, and changed in the same transaction."""

import logging
import threading
from collections.abc import Callable

from django.core.mail import EmailMessage
from django.db import InterfaceError, InternalError, OperationalError, close_old_connections, connection, transaction
from django.utils.timezone import now

from zerver.lib.actions import send_message
from zerver.lib.exceptions import JsonableError
from zerver.lib.stopping import stop_event
from zerver.models import ScheduledEmail, ScheduledMessage, UserMessage

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
RETRY_SECONDS = 2.0


def run_scheduler(deliver_one: Callable[[], bool], stop: threading.Event | None = None) -> None:
    """Deliver what is due until SIGTERM, waiting while the database cannot be written."""
    stop = stop or stop_event()
    while not stop.is_set():
        try:
            close_old_connections()
            while not stop.is_set() and deliver_one():
                pass
            stop.wait(POLL_SECONDS)
        except (OperationalError, InterfaceError, InternalError) as error:
            logger.warning("scheduler: %s; trying again", str(error).strip())
            connection.close()
            stop.wait(RETRY_SECONDS)
        except OSError as error:  # the mail server or the broker
            logger.warning("scheduler: %s; trying again", error)
            stop.wait(RETRY_SECONDS)


@transaction.atomic
def deliver_scheduled_message() -> bool:
    """Send one message that is due; whether there was one."""
    due = ScheduledMessage.objects.filter(delivered=False, scheduled_timestamp__lte=now()).order_by("id")
    row = due.select_for_update(skip_locked=True).first()
    if row is None:
        return False
    try:
        with transaction.atomic():
            message = send_message(row.sender, row.recipient, row.content, topic=row.subject)
    except JsonableError as error:
        logger.error("scheduled message %d cannot be sent: %s", row.id, error.msg)
        message = None
    row.delivered, row.delivered_message = True, message
    row.save(update_fields=["delivered", "delivered_message"])
    return True


@transaction.atomic
def deliver_scheduled_email() -> bool:
    """Send one mail that is due; whether there was one. Its Message-ID never changes, so that a repetition shows."""
    due = ScheduledEmail.objects.filter(scheduled_timestamp__lte=now()).order_by("id")
    row = due.select_for_update(skip_locked=True).first()
    if row is None:
        return False
    received = UserMessage.objects.filter(user_id=row.user_id, message_id=row.message_id).first()
    if received is None or not received.flags & UserMessage.READ:
        headers = {"Message-ID": f"<scheduled-{row.id}@zulip.invalid>"}
        EmailMessage(row.subject, row.body, to=[row.user.email], headers=headers).send()
    row.delete()
    return True
