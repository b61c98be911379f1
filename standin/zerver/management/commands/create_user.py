"""`create_user EMAIL FULL_NAME`."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from zerver.lib import actions
from zerver.management.accounts import ROLES, add_password_option, add_realm_option, find_realm, read_password
from zerver.models import Stream, UserProfile

BOT = "bot"


class Command(BaseCommand):
    help = "Create a user who is subscribed to `general`."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("email")
        parser.add_argument("full_name")
        parser.add_argument("--role", choices=[*ROLES, BOT], default="member", help="bot: a bot with a member's rights")
        parser.add_argument(
            "--if-missing", action="store_true", help="succeed when the user is there, changing nothing"
        )
        add_password_option(parser)
        add_realm_option(parser)

    @transaction.atomic
    def handle(
        self,
        *_: Any,
        email: str,
        full_name: str,
        role: str,
        realm: str,
        password_file: str | None,
        if_missing: bool,
        **__: Any,
    ) -> None:
        found = find_realm(realm)
        if UserProfile.objects.filter(email=email.strip().lower()).exists():
            if if_missing:
                self.stdout.write(f"User {email} exists.")
                return
            raise CommandError(f"User {email} exists.")
        user = actions.create_user(
            found,
            email,
            full_name,
            read_password(password_file),
            role=ROLES["member" if role == BOT else role],
            is_bot=role == BOT,
        )
        actions.subscribe(Stream.objects.filter(realm=found, name="general"), [user])
        self.stdout.write(f"Created user {user.email}.")
