"""The program that looks at both stores of uploads, with a store of its own instead of S3."""

from __future__ import annotations

import datetime
import importlib.util
import io
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SPEC = importlib.util.spec_from_file_location("s3_uploads", ROOT / "playbooks/files/s3_uploads.py")
assert SPEC
assert SPEC.loader
program = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(program)

THEN, LATER = 1_000_000_000, 1_000_000_100


class Store:
    """Keeps objects, as much of boto3's client as the program uses."""

    def __init__(self, refuse: str = "") -> None:
        self.buckets: dict[str, dict[str, tuple[bytes, int]]] = {"uploads": {}, "avatars": {}}
        self.refuse, self.types = refuse, {}

    def _check(self, call: str) -> None:
        if call == self.refuse:
            raise RuntimeError("AccessDenied")

    def put_object(self, Bucket, Key, Body):
        self._check("put")
        self.buckets[Bucket][Key] = (Body, LATER)

    def get_object(self, Bucket, Key):
        self._check("get")
        return {"Body": io.BytesIO(self.buckets[Bucket][Key][0])}

    def delete_object(self, Bucket, Key):
        self._check("delete")
        del self.buckets[Bucket][Key]

    def list_objects_v2(self, Bucket, MaxKeys):
        self._check("list")

    def upload_file(self, path, bucket, key, ExtraArgs):
        self.buckets[bucket][key] = (Path(path).read_bytes(), LATER)
        self.types[key] = ExtraArgs["ContentType"]

    def get_paginator(self, _name):
        return self

    def paginate(self, Bucket):
        items = [
            {"Key": key, "LastModified": datetime.datetime.fromtimestamp(at, datetime.UTC)}
            for key, (_body, at) in self.buckets[Bucket].items()
        ]
        # An empty page has no contents.
        return [{"Contents": items[:1]}, {"Contents": items[1:]}, {}]


FILES = [
    "files/2/ab/picture.png",
    "files/2/cd/text.txt",
    "files/thumbnail/2/ab/picture.png/840x560.webp",
    "avatars/2/hash.original",
    "avatars/2/hash.png",
    "avatars/2/emoji/images/1.png.original",
    "avatars/2/emoji/images/1.png",
    "avatars/2/realm/icon.png",
    "avatars/2/realm/icon.original",
]


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def stores(tmp_path, store):
    for name in FILES:
        path = tmp_path / "uploads" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        os.utime(path, (THEN, THEN))
    (tmp_path / "due").mkdir()
    task = {"directory": str(tmp_path / "uploads"), "work": str(tmp_path / "due")}
    return program.Stores(task | {"uploads_bucket": "uploads", "avatar_bucket": "avatars"}, store)


def linked(stores):
    return {str(path.relative_to(stores.work)) for path in stores.work.rglob("*") if path.is_symlink()}


def test_a_test_object_leaves_nothing_behind(stores, store):
    assert stores.try_out() == {"tried": ["uploads", "avatars"]}
    assert store.buckets == {"uploads": {}, "avatars": {}}


@pytest.mark.parametrize(
    ("call", "says"), [("put", "takes no"), ("get", "gives no"), ("delete", "removes no"), ("list", "lists no")]
)
def test_a_bucket_that_refuses_is_named_in_one_line(stores, store, call, says):
    store.refuse = call
    with pytest.raises(SystemExit, match=f"the bucket uploads {says} objects?.*: AccessDenied"):
        stores.try_out()


def test_at_first_everything_is_due(stores):
    plan = stores.plan()
    assert plan["found"] == plan["due"] == {"files": 2, "avatars": 2, "thumbnails": 1, "icons": 2}
    assert linked(stores) == {
        "files/2/ab/picture.png",
        "files/2/cd/text.txt",
        "avatars/2/hash.original",
        "avatars/2/emoji/images/1.png.original",
    }
    assert (stores.work / "files/2/cd/text.txt").read_text() == "files/2/cd/text.txt"


def test_what_is_newer_in_s3_stays(stores, store):
    store.buckets["avatars"]["2/hash.original"] = (b"changed after the switch", LATER)
    store.buckets["uploads"]["2/ab/picture.png"] = (b"", THEN - 1)
    plan = stores.plan()
    assert plan["due"]["files"] == 2
    assert "avatars/2/hash.original" not in linked(stores)


def test_where_an_avatar_is_due_emoji_are_there_too(stores, store):
    store.buckets["avatars"]["2/emoji/images/1.png.original"] = (b"", LATER)
    assert stores.plan()["due"]["avatars"] == 1
    assert "avatars/2/emoji/images/1.png.original" in linked(stores)


def test_a_plan_replaces_the_last_one(stores, store):
    stores.plan()
    for name in ("2/ab/picture.png", "2/cd/text.txt"):
        store.buckets["uploads"][name] = (b"", LATER)
    stores.plan()
    assert not [name for name in linked(stores) if name.startswith("files/")]


def test_what_the_command_leaves_behind_is_copied_once(stores, store):
    assert stores.rest() == {"copied": {"thumbnails": 1, "icons": 2}}
    assert store.types == {
        "thumbnail/2/ab/picture.png/840x560.webp": "image/webp",
        "2/realm/icon.png": "image/png",
        "2/realm/icon.original": "application/octet-stream",
    }
    assert stores.rest() == {"copied": {"thumbnails": 0, "icons": 0}}


def test_files_and_objects_are_compared(stores, store):
    stores.rest()
    store.buckets["uploads"]["2/ab/picture.png"] = (b"", LATER)
    answer = stores.compare()
    assert answer["present"] == {"files": 1, "avatars": 0, "thumbnails": 1, "icons": 2}
    assert answer["left"] == ["avatars/2/emoji/images/1.png.original", "avatars/2/hash.original", "files/2/cd/text.txt"]
    assert answer["left_count"] == 3
