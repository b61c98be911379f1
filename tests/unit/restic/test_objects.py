"""The list of objects in S3."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime

from tests.unit.app.paths import load_program

objects = load_program("roles/restic/files/restic_objects", "restic_objects")
TASK = {"store": "files", "bucket": "b", "endpoint": "https://s3", "secret_key": "not to be seen"}
ITEM = {"Key": 'ä"\n', "Size": 3, "ETag": '"e"', "LastModified": datetime(2026, 1, 1, tzinfo=UTC)}


def test_a_list_is_json_with_an_object_a_line():
    stream = io.StringIO()
    assert objects.write(TASK, [{"Contents": [ITEM, ITEM]}, {}], stream) == 2
    document = json.loads(stream.getvalue())
    assert document["objects"][1] == {"key": 'ä"\n', "size": 3, "etag": "e", "modified": "2026-01-01T00:00:00Z"}
    assert stream.getvalue().count('"key":') == sum('"key":' in line for line in stream.getvalue().splitlines())
    assert "not to be seen" not in stream.getvalue()


def test_an_empty_bucket_is_a_list_too():
    stream = io.StringIO()
    assert objects.write(TASK, [{}], stream) == 0
    assert json.loads(stream.getvalue())["objects"] == []
