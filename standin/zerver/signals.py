"""Keeps the cache true to the database."""

from typing import Any

from django.db import transaction
from django.db.models.signals import post_save
from django.dispatch import receiver

from zerver.lib.cache import forget_user
from zerver.models import UserProfile


@receiver(post_save, sender=UserProfile)
def user_saved(instance: UserProfile, **_: Any) -> None:
    """Forget the user once the change can be seen by others."""
    transaction.on_commit(lambda: forget_user(instance))
