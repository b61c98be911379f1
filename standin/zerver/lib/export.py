"""A realm as files: what people made, in JSON by table, and what they uploaded. No passwords and no keys."""

import json
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.db.models import Q, QuerySet

from zerver.lib.uploads import local_path
from zerver.models import Attachment, Message, Realm, Recipient, Stream, Subscription, UserMessage, UserProfile

MESSAGES_PER_FILE = 1000
PRIVATE = {"password", "api_key", "last_login"}


def rows(found: QuerySet) -> Iterator[dict[str, Any]]:
    """The rows of a table as they are stored, by number, without what is private."""
    names = [field.attname for field in found.model._meta.concrete_fields if field.attname not in PRIVATE]
    return found.order_by("id").values(*names).iterator()


def batches(table: Iterator[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    """Some rows at a time."""
    while batch := list(islice(table, size)):
        yield batch


def write(path: Path, tables: dict[str, Iterable[dict[str, Any]]]) -> None:
    """Write tables as one JSON object."""
    content = {name: list(table) for name, table in tables.items()}
    path.write_text(json.dumps(content, cls=DjangoJSONEncoder, indent=1) + "\n")


def export_realm(realm: Realm, directory: Path) -> list[str]:
    """Write the realm's files; return the attachments whose file is missing."""
    users = UserProfile.objects.filter(realm=realm)
    messages = Message.objects.filter(realm=realm)
    of_realm = Q(stream__realm=realm) | Q(message__realm=realm)
    write(
        directory / "realm.json",
        {
            "zerver_realm": rows(Realm.objects.filter(id=realm.id)),
            "zerver_userprofile": rows(users),
            "zerver_stream": rows(Stream.objects.filter(realm=realm)),
            "zerver_subscription": rows(Subscription.objects.filter(user__realm=realm)),
            "zerver_recipient": rows(Recipient.objects.filter(of_realm).distinct()),
        },
    )
    for number, batch in enumerate(batches(rows(messages), MESSAGES_PER_FILE), 1):
        ids = [message["id"] for message in batch]
        flags = UserMessage.objects.filter(message_id__in=ids)
        write(directory / f"messages-{number:06}.json", {"zerver_message": batch, "zerver_usermessage": rows(flags)})
    attachments = Attachment.objects.filter(realm=realm)
    used = attachments.order_by("id").values_list("id", "messages").exclude(messages=None)
    links = ({"attachment_id": attachment, "message_id": message} for attachment, message in used)
    write(
        directory / "attachment.json",
        {"zerver_attachment": rows(attachments), "zerver_attachment_messages": links},
    )
    return [attachment.path_id for attachment in attachments if not copy_upload(attachment, directory / "uploads")]


def copy_upload(attachment: Attachment, directory: Path) -> bool:
    """Copy the file of an attachment; tell whether it was there."""
    target = directory / attachment.path_id
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copyfile(local_path(attachment.path_id), target)
    except FileNotFoundError:
        return False
    return True


def archive_directory(directory: Path, archive: Path) -> None:
    """Pack a directory so that the archive is whole when its name appears."""
    part = archive.with_name(f".{archive.name}.part")
    with tarfile.open(part, "w:gz") as tar:
        tar.add(directory, arcname=directory.name)
    part.replace(archive)
