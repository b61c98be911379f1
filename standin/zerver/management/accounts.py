"""What the commands for accounts have in common."""

import os
import sys
from argparse import ArgumentParser
from pathlib import Path

from django.core.management.base import CommandError

from zerver.models import Realm, Role, UserProfile

ROLES = {role.label: role.value for role in Role}


def add_realm_option(parser: ArgumentParser) -> None:
    """Zulip's -r; the one realm is at the root domain, whose name is empty."""
    parser.add_argument("-r", "--realm", default="", help="the realm's subdomain; empty for the root domain")


def add_password_option(parser: ArgumentParser) -> None:
    """Passwords never come as arguments: every user of the host could see them."""
    parser.add_argument(
        "--password-file", help="file with the password, - for standard input; otherwise $ZULIP_PASSWORD is used"
    )


def read_password(password_file: str | None) -> str:
    """The password from where the options say."""
    if password_file == "-":
        password = sys.stdin.readline()
    elif password_file:
        password = Path(password_file).read_text()
    else:
        password = os.environ.get("ZULIP_PASSWORD", "")
    if not (password := password.strip("\r\n")):
        raise CommandError("There is no password: give --password-file, or set ZULIP_PASSWORD.")
    return password


def find_realm(string_id: str = "") -> Realm:
    """The realm."""
    try:
        return Realm.objects.get(string_id=string_id)
    except Realm.DoesNotExist:
        raise CommandError("There is no such realm: run create_realm first.") from None


def find_user(email: str) -> UserProfile:
    """A user by e-mail address."""
    try:
        return UserProfile.objects.get_by_natural_key(email)
    except UserProfile.DoesNotExist:
        raise CommandError(f"There is no user {email}.") from None
