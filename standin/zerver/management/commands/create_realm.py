"""`create_realm NAME OWNER_EMAIL [OWNER_FULL_NAME]`."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from zerver.lib import actions
from zerver.management.accounts import add_password_option, read_password
from zerver.models import Realm, Role


class Command(BaseCommand):
    help = "Create the organisation with its owner and the channel `general`."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name")
        parser.add_argument("owner_email")
        parser.add_argument("owner_full_name", nargs="?", default="Owner")
        parser.add_argument("--if-missing", action="store_true", help="succeed when the organisation is there")
        add_password_option(parser)

    @transaction.atomic
    def handle(
        self,
        *_: Any,
        name: str,
        owner_email: str,
        owner_full_name: str,
        password_file: str | None,
        if_missing: bool,
        **__: Any,
    ) -> None:
        if Realm.objects.exists():
            if if_missing:
                self.stdout.write("The realm exists.")
                return
            raise CommandError("The realm exists, and there can be only one.")
        realm = Realm.objects.create(name=name)
        owner = actions.create_user(realm, owner_email, owner_full_name, read_password(password_file), role=Role.OWNER)
        stream, _created = actions.get_or_create_stream(owner, "general", description="For everybody")
        actions.subscribe([stream], [owner])
        self.stdout.write(f"Created realm {name} with owner {owner.email}.")
