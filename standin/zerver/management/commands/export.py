"""`export -r "" --output DIRECTORY`: everything of the realm, in the directory and as DIRECTORY.tar.gz."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from zerver.lib.export import archive_directory, export_realm
from zerver.management.accounts import add_realm_option, find_realm


class Command(BaseCommand):
    help = "Export the realm: people, channels, messages and files, without passwords and keys."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--output", required=True, help="directory to write to; not there yet, or empty")
        add_realm_option(parser)

    def handle(self, *_: Any, output: str, realm: str, **__: Any) -> None:
        directory = Path(output).expanduser().resolve()
        archive = directory.with_name(f"{directory.name}.tar.gz")
        if directory.exists() and any(directory.iterdir()):
            raise CommandError(f"{directory} is not empty.")
        if archive.exists():
            raise CommandError(f"{archive} is there already.")
        found = find_realm(realm)
        directory.mkdir(parents=True, exist_ok=True)
        for path_id in export_realm(found, directory):
            self.stderr.write(f"The file of an attachment is missing: {path_id}")
        archive_directory(directory, archive)
        self.stdout.write(f"Exported to {archive}")
