"""Looks at a store of uploads in S3 beside the local one; playbooks/uploads_to_s3.yml runs it by the release's Python.

  s3_uploads.py try      puts, reads and removes a test object in each bucket
  s3_uploads.py plan     finds what is to be transferred and links it below `work`, for the release's own command
  s3_uploads.py rest     copies what that command leaves behind: thumbnails, and icons and logos of organisations
  s3_uploads.py compare  counts files and objects

Reads what to do as JSON from standard input, for keys must not be seen in a list of processes, and prints JSON.
"""

from __future__ import annotations

import json
import mimetypes
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SHOWN = 20
"""So many names of files are shown, where there are more."""
KINDS = ("files", "avatars", "thumbnails", "icons")


def kind_of(store: str, name: str) -> str:
    """Return what a local file is, empty for one that S3 does not have under its name.

    Of avatars and emoji only the original is compared: the release makes the smaller ones from it, with other names.
    """
    if store == "files":
        return "thumbnails" if name.startswith("thumbnail/") else "files"
    if name.count("/") == 2 and name.split("/")[1] == "realm":
        return "icons"
    return "avatars" if name.endswith(".original") else ""


def local_files(root: Path) -> Iterator[tuple[str, float]]:
    """Yield the name and the time of change of each file below a folder."""
    for folder, _folders, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            try:
                changed = path.stat().st_mtime
            except FileNotFoundError:
                continue  # it was removed just now
            yield str(path.relative_to(root)), changed


class Stores:
    """The two buckets beside the two local folders."""

    def __init__(self, task: dict[str, Any], client: Any) -> None:
        self.client = client
        self.directory, self.work = Path(task["directory"]), Path(task["work"])
        self.buckets = {"files": task["uploads_bucket"], "avatars": task["avatar_bucket"]}

    def objects(self, store: str) -> dict[str, float]:
        """Return the objects of a bucket with the time at which each was put there."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.buckets[store])
        return {item["Key"]: item["LastModified"].timestamp() for page in pages for item in page.get("Contents", ())}

    def survey(self) -> tuple[dict[str, int], dict[str, int], dict[str, list[str]]]:
        """Return by kind how many files there are, how many objects of their names, and which files are not there yet.

        A file that is older than its object is there: somebody may have changed the picture in S3 since.
        """
        found, present = dict.fromkeys(KINDS, 0), dict.fromkeys(KINDS, 0)
        due: dict[str, list[str]] = {kind: [] for kind in KINDS}
        for store in self.buckets:
            objects = self.objects(store)
            for name, changed in local_files(self.directory / store):
                kind = kind_of(store, name)
                if not kind:
                    continue
                found[kind] += 1
                present[kind] += name in objects
                if name not in objects or changed > objects[name]:
                    due[kind].append(name)
        return found, present, due

    def try_out(self) -> dict[str, Any]:
        """Put an object into each bucket, read it back, and remove it."""
        name, body = f"zulip-ha-test-{secrets.token_hex(8)}", secrets.token_bytes(32)
        for bucket in self.buckets.values():
            step = "takes no object"
            try:
                self.client.put_object(Bucket=bucket, Key=name, Body=body)
                step = "gives no object back"
                if self.client.get_object(Bucket=bucket, Key=name)["Body"].read() != body:
                    raise ValueError("it is another one")
                step = "removes no object"
                self.client.delete_object(Bucket=bucket, Key=name)
                step = "lists no objects"
                self.client.list_objects_v2(Bucket=bucket, MaxKeys=1)
            except Exception as error:
                raise SystemExit(f"the bucket {bucket} {step}: {error}") from error
        return {"tried": list(self.buckets.values())}

    def link(self, store: str, name: str) -> None:
        """Let the release's command find one file."""
        link = self.work / store / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(self.directory / store / name)

    def plan(self) -> dict[str, Any]:
        """Link what is due. The command passes over all that it does not find."""
        for store in self.buckets:
            shutil.rmtree(self.work / store, ignore_errors=True)
            (self.work / store).mkdir(parents=True)
        found, present, due = self.survey()
        for store in self.buckets:
            for name in due[store]:
                self.link(store, name)
        if due["avatars"]:
            # Of emoji the command reports each one that it does not find as an error; they are few, and never change.
            for name, _changed in local_files(self.directory / "avatars"):
                if "/emoji/" in name and kind_of("avatars", name) and name not in due["avatars"]:
                    self.link("avatars", name)
        return {"found": found, "present": present, "due": {kind: len(names) for kind, names in due.items()}}

    def rest(self) -> dict[str, Any]:
        """Copy what has the same name in both stores and is not in the command's care."""
        mimetypes.add_type("image/webp", ".webp")
        mimetypes.add_type("image/avif", ".avif")
        due = self.survey()[2]
        for kind, store in (("thumbnails", "files"), ("icons", "avatars")):
            for name in due[kind]:
                guessed = mimetypes.guess_type(name)[0] or "application/octet-stream"
                self.client.upload_file(
                    str(self.directory / store / name), self.buckets[store], name, ExtraArgs={"ContentType": guessed}
                )
        return {"copied": {kind: len(due[kind]) for kind in ("thumbnails", "icons")}}

    def compare(self) -> dict[str, Any]:
        """Count, and name some of the files that have no object."""
        found, present, due = self.survey()
        left = [
            f"{'avatars' if kind in ('avatars', 'icons') else 'files'}/{name}" for kind in KINDS for name in due[kind]
        ]
        return {"found": found, "present": present, "left": sorted(left)[:SHOWN], "left_count": len(left)}


def connect(task: dict[str, Any]) -> Any:
    """Return a client for the store, made as the release makes its own."""
    import boto3
    from botocore.client import Config

    more = {"request_checksum_calculation": "when_required"} if task.get("skip_checksum") else {}
    return boto3.client(
        "s3",
        # None, and not an empty text, makes boto3 look for what the host's own role grants.
        aws_access_key_id=task["access_key"] or None,
        aws_secret_access_key=task["secret_key"] or None,
        region_name=task["region"] or None,
        endpoint_url=task["endpoint"] or None,
        config=Config(
            s3={"addressing_style": task["addressing_style"]},
            connect_timeout=10,
            retries={"max_attempts": 3},
            **more,
        ),
    )


def main() -> None:
    """Do what the argument says."""
    task = json.load(sys.stdin)
    stores = Stores(task, connect(task))
    actions = {"try": stores.try_out, "plan": stores.plan, "rest": stores.rest, "compare": stores.compare}
    json.dump(actions[sys.argv[1]](), sys.stdout)


if __name__ == "__main__":
    main()
