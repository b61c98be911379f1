"""The queue workers, one class a queue."""

import json
import logging
import smtplib
import urllib.request
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.core.mail import send_mail
from django.db import transaction
from django.db.models import F
from django.utils.timezone import now

from zerver.lib.actions import update_flags
from zerver.lib.markdown import URL
from zerver.lib.messages import message_dict, people_of
from zerver.models import Message, ScheduledEmail, UserActivity, UserMessage, UserProfile
from zerver.workers.base import QueueWorker

logger = logging.getLogger(__name__)


class DeferredWork(QueueWorker):
    """What a request started and need not wait for."""

    queue = "deferred_work"

    def work(self, event: dict[str, Any]) -> None:
        if event["type"] != "mark_stream_messages_as_read":
            raise ValueError(f"unknown deferred work: {event['type']}")
        user = UserProfile.objects.get(id=event["user_id"])
        unread = UserMessage.objects.filter(user=user, message__recipient__stream__in=event["stream_ids"])
        unread = unread.filter(flags__in=[0, UserMessage.STARRED])
        update_flags(user, unread.values_list("message_id", flat=True), "add", "read")


class EmailSenders(QueueWorker):
    """Mail that is to go out at once."""

    queue = "email_senders"

    def work(self, event: dict[str, Any]) -> None:
        try:
            send_mail(event["subject"], event["body"], settings.DEFAULT_FROM_EMAIL, event["to"])
        except (smtplib.SMTPConnectError, smtplib.SMTPServerDisconnected):
            raise
        except smtplib.SMTPException as error:
            # To the caller every one of these is an OSError, which is tried again; a refusal must not hold up the rest.
            raise ValueError(f"the mail server refused: {error}") from error


class MissedMessageEmails(QueueWorker):
    """Plans a mail about a direct message; it is dropped when the message is read before it is due."""

    queue = "missedmessage_emails"

    def work(self, event: dict[str, Any]) -> None:
        message = Message.objects.select_related("sender").filter(id=event["message_id"]).first()
        if message is None:
            return
        due = now() + timedelta(seconds=settings.MISSED_MESSAGE_EMAIL_DELAY_SECS)
        subject = f"Direct message from {message.sender.full_name}"
        ScheduledEmail.objects.get_or_create(
            user_id=event["user_id"],
            message=message,
            defaults={"subject": subject, "body": message.content, "scheduled_timestamp": due},
        )


class UserActivityWorker(QueueWorker):
    """Counts requests."""

    queue = "user_activity"

    def work(self, event: dict[str, Any]) -> None:
        visit = datetime.fromtimestamp(event["time"], tz=UTC)
        with transaction.atomic():
            row, _ = UserActivity.objects.get_or_create(
                user_id=event["user_id"],
                client=event["client"],
                query=event["query"][:50],
                defaults={"last_visit": visit},
            )
            UserActivity.objects.filter(id=row.id).update(count=F("count") + 1, last_visit=visit)


class EmbedLinks(QueueWorker):
    """Notes a message's links below it. (Zulip fetches the pages; a test double has no business on other sites.)"""

    queue = "embed_links"

    def work(self, event: dict[str, Any]) -> None:
        message = Message.objects.filter(id=event["message_id"]).first()
        if message is None or "message_embed" in message.rendered_content:
            return
        count = len(URL.findall(message.content))
        embed = f'\n<div class="message_embed">{count} link{"s" if count > 1 else ""}</div>'
        Message.objects.filter(id=message.id).update(rendered_content=message.rendered_content + embed)


class OutgoingWebhooks(QueueWorker):
    """Tells a bot's own server of a direct message to the bot."""

    queue = "outgoing_webhooks"

    def work(self, event: dict[str, Any]) -> None:
        bot = UserProfile.objects.filter(id=event["user_id"], is_active=True).first()
        message = (
            Message.objects.select_related("sender__realm", "recipient__stream").filter(id=event["message_id"]).first()
        )
        if bot is None or message is None or not bot.webhook_url:
            return
        data = {
            "bot_email": bot.email,
            "trigger": "direct_message",
            "message": message_dict(message, people_of([message])),
        }
        request = urllib.request.Request(
            bot.webhook_url, json.dumps(data).encode(), {"Content-Type": "application/json"}
        )
        try:
            urllib.request.urlopen(request, timeout=10).close()
        except OSError as error:
            logger.warning("outgoing_webhooks: %s did not take message %d: %s", bot.webhook_url, message.id, error)


WORKERS: dict[str, type[QueueWorker]] = {
    worker.queue: worker
    for worker in (DeferredWork, EmailSenders, EmbedLinks, MissedMessageEmails, OutgoingWebhooks, UserActivityWorker)
}
