"""`show_admins`."""

from zerver.management.commands import list_users


class Command(list_users.Command):
    help = "Print owners and administrators."
    admins_only = True
