"""Uploaded files under LOCAL_UPLOADS_DIR/files, which nginx serves after this server has checked who asks."""

import os
import re
import secrets
import unicodedata
from pathlib import Path

from django.conf import settings
from django.core.files.uploadedfile import UploadedFile
from django.db.models import Q

from zerver.lib.exceptions import JsonableError
from zerver.models import Attachment, UserProfile


def sanitize_name(name: str) -> str:
    """A file name that is safe in a path and in a URL, with its extension."""
    name = unicodedata.normalize("NFKC", name).replace("\\", "/").rsplit("/", 1)[-1]
    return re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII).strip(".-")[-100:] or "uploaded-file"


def local_path(path_id: str) -> Path:
    """Where the file of an attachment is."""
    return Path(settings.LOCAL_UPLOADS_DIR) / "files" / path_id


def store_upload(user: UserProfile, upload: UploadedFile) -> Attachment:
    """Write a file so that it is complete when its name appears, then record it."""
    if upload.size > settings.MAX_FILE_UPLOAD_SIZE * 1024 * 1024:
        limit = settings.MAX_FILE_UPLOAD_SIZE
        raise JsonableError(f"Uploaded file is larger than the allowed limit of {limit} MiB", "BAD_REQUEST", 413)
    file_name = sanitize_name(upload.name or "")
    path_id = f"{user.realm_id}/{secrets.token_hex(1)}/{secrets.token_urlsafe(18)}/{file_name}"
    path = local_path(path_id)
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    temporary = path.with_name(f".{file_name}.part")
    with temporary.open("wb") as stream:
        for chunk in upload.chunks():
            stream.write(chunk)
        stream.flush()
        os.fsync(stream.fileno())
        os.fchmod(stream.fileno(), 0o644)
    temporary.replace(path)
    return Attachment.objects.create(
        realm=user.realm, owner=user, file_name=upload.name or file_name, path_id=path_id, size=upload.size
    )


def readable_attachment(user: UserProfile, path_id: str) -> Attachment:
    """The attachment, if the user owns it or can read a message that refers to it."""
    received = Q(messages__usermessage__user=user)
    public = Q(messages__recipient__stream__invite_only=False)
    found = Attachment.objects.filter(Q(owner=user) | received | public, realm=user.realm, path_id=path_id).first()
    if found is None:
        raise JsonableError("This file does not exist or you are not allowed to see it.", "BAD_REQUEST", 404)
    return found


def delete_attachment(attachment: Attachment) -> None:
    """Forget the record, then the file: a file without a record is harmless."""
    path = local_path(attachment.path_id)
    attachment.delete()
    path.unlink(missing_ok=True)
