"""`update_analytics_counts`: an hourly once-only cron."""

from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand
from django.utils.timezone import now

from zerver.models import Message, Realm, RealmCount, UserProfile


class Command(BaseCommand):
    help = "Record the numbers of users and messages at the end of the last full hour. Repeating it changes nothing."

    def handle(self, *_: Any, **__: Any) -> None:
        end = now().replace(minute=0, second=0, microsecond=0)
        for realm in Realm.objects.all():
            sent = Message.objects.filter(realm=realm, date_sent__lt=end)
            counts = {
                "active_users": UserProfile.objects.filter(realm=realm, is_active=True, date_joined__lt=end).count(),
                "messages_sent:total": sent.count(),
                "messages_sent:hour": sent.filter(date_sent__gte=end - timedelta(hours=1)).count(),
            }
            for name, value in counts.items():
                RealmCount.objects.update_or_create(realm=realm, property=name, end_time=end, defaults={"value": value})
