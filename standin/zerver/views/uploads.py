"""Uploading and downloading files."""

import mimetypes
from typing import Any
from urllib.parse import quote

from django.core import signing
from django.http import HttpRequest, HttpResponse, HttpResponseBase

from zerver.lib.exceptions import JsonableError
from zerver.lib.params import Params
from zerver.lib.rest import json_error
from zerver.lib.uploads import readable_attachment, store_upload
from zerver.models import UserProfile

_SALT = "user_uploads/temporary"
_TEMPORARY_SECONDS = 60
# Anything else may run as a script of this site and is only offered for saving.
_INLINE_TYPES = {
    "application/pdf",
    "audio/mpeg",
    "image/gif",
    "image/jpeg",
    "image/png",
    "image/webp",
    "text/plain",
    "video/mp4",
}


def upload_file(request: HttpRequest, user: UserProfile, params: Params) -> dict[str, Any]:
    """Store the one file of the request, whatever its field is called."""
    files = list(request.FILES.values())
    if not files:
        raise JsonableError("You must specify a file to upload")
    if len(files) > 1:
        raise JsonableError("You may only upload one file at a time")
    attachment = store_upload(user, files[0])
    url = f"/user_uploads/{attachment.path_id}"
    return {"url": url, "uri": url, "filename": attachment.file_name}


def _hand_over(path_id: str) -> HttpResponse:
    """Let nginx send the file."""
    content_type = mimetypes.guess_type(path_id)[0] or "application/octet-stream"
    disposition = "inline" if content_type in _INLINE_TYPES else "attachment"
    response = HttpResponse(content_type=content_type)
    response.headers["X-Accel-Redirect"] = f"/internal/local/uploads/{quote(path_id)}"
    response.headers["Content-Disposition"] = f'{disposition}; filename="{path_id.rsplit("/", 1)[-1]}"'
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def serve_file(request: HttpRequest, user: UserProfile, params: Params, path_id: str) -> HttpResponseBase:
    """A file, to somebody who may see it."""
    return _hand_over(readable_attachment(user, path_id).path_id)


def temporary_url(request: HttpRequest, user: UserProfile, params: Params, path_id: str) -> dict[str, Any]:
    """An address at which the file can be had for a minute without logging in."""
    attachment = readable_attachment(user, path_id)
    token = signing.dumps(attachment.path_id, salt=_SALT)
    return {"url": f"/user_uploads/temporary/{token}/{path_id.rsplit('/', 1)[-1]}"}


def serve_temporary(request: HttpRequest, token: str, file_name: str) -> HttpResponseBase:
    """A file, to somebody who was given its temporary address."""
    try:
        path_id = signing.loads(token, salt=_SALT, max_age=_TEMPORARY_SECONDS)
    except signing.BadSignature:
        return json_error(JsonableError("Invalid token", "BAD_REQUEST", 403))
    return _hand_over(path_id)
