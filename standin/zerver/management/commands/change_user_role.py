"""`change_user_role EMAIL ROLE`."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from zerver.lib import actions
from zerver.management.accounts import ROLES, add_realm_option, find_user


class Command(BaseCommand):
    help = "Give a user another role."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("email")
        parser.add_argument("new_role", choices=ROLES)
        add_realm_option(parser)

    def handle(self, *_: Any, email: str, new_role: str, **__: Any) -> None:
        user = find_user(email)
        if user.role == ROLES[new_role]:
            self.stdout.write(f"{user.email} is {new_role} already.")
            return
        actions.change_role(user, ROLES[new_role])
        self.stdout.write(f"{user.email} is now {new_role}.")
