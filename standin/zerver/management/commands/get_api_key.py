"""`get_api_key EMAIL`."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from zerver.management.accounts import add_realm_option, find_user


class Command(BaseCommand):
    help = "Print a user's API key as JSON."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("email")
        add_realm_option(parser)

    def handle(self, *_: Any, email: str, **__: Any) -> None:
        user = find_user(email)
        self.stdout.write(json.dumps({"email": user.email, "user_id": user.id, "api_key": user.api_key}))
