"""`list_users`."""

from argparse import ArgumentParser
from json import dumps
from typing import Any

from django.core.management.base import BaseCommand

from zerver.management.accounts import add_realm_option
from zerver.models import Role, UserProfile


class Command(BaseCommand):
    help = "Print all users."
    admins_only = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print JSON")
        add_realm_option(parser)

    def handle(self, *_: Any, json: bool, **__: Any) -> None:
        users = UserProfile.objects.order_by("id")
        if self.admins_only:
            users = users.filter(role__lte=Role.ADMIN)
        rows = [
            {"id": u.id, "email": u.email, "full_name": u.full_name, "role": Role(u.role).label, "active": u.is_active}
            for u in users
        ]
        if json:
            self.stdout.write(dumps(rows))
            return
        for row in rows:
            state = "" if row["active"] else " (deactivated)"
            self.stdout.write(f"{row['id']:>6} {row['role']:<9} {row['email']} {row['full_name']}{state}")
