"""What is wrong with `backup_repositories`, in one line."""

from __future__ import annotations

from typing import Any

import pytest

from plugin_utils.validation.backup import backup_problems

S3: dict[str, Any] = {
    "type": "s3",
    "bucket": "b",
    "endpoint": "s3.example.com",
    "region": "us-east-1",
    "key": "k",
    "key_secret": "s",
}
POSIX = {"type": "posix", "path": "/var/lib/pgbackrest"}


def problems(*repositories: Any) -> list[str]:
    return list(backup_problems({"backup_repositories": list(repositories)}, "inv"))


@pytest.mark.parametrize(
    "repositories",
    [
        [POSIX],
        [POSIX, S3],
        [S3],
        [S3 | {"sse": "aws:kms", "kms_key_id": "k"}, POSIX],
        [{**S3, "key": "", "key_secret": "", "key_type": "auto"}],
    ],
)
def test_right_ones(repositories):
    assert problems(*repositories) == []


@pytest.mark.parametrize(
    ("repositories", "expected"),
    [
        ([], "has 0 of them; give one to 4"),
        ([S3 | {"bucket": f"b{number}"} for number in range(5)], "has 5 of them; give one to 4"),
        (["s3"], "number 1 is no mapping"),
        ([{"type": "gcs"}], "has the type gcs; choose posix or s3"),
        ([{"path": "/x"}], "has the type nothing"),
        ([{"type": "posix"}], "lacks `path`; name a directory of the backup host"),
        ([POSIX | {"path": "backups"}], "has the path backups; write an absolute one"),
        ([POSIX | {"bucket": "b"}], "has `bucket`, which a repository of type posix does not know"),
        ([POSIX, {key: value for key, value in S3.items() if key != "bucket"}], "number 2 lacks `bucket`"),
        ([S3 | {"endpoint": "", "region": ""}], "lacks `endpoint`, `region`"),
        ([S3 | {"key": "", "key_secret": ""}], "lacks `key`, `key_secret`"),
        ([S3 | {"sse": "AES256"}], "make it the default of the bucket"),
        ([S3 | {"sse": "aws:kms"}], "lacks `kms_key_id`"),
        ([S3 | {"sse": "rot13"}], "choose none, aws:kms, customer"),
        ([S3 | {"endpoint": "http://minio:9000"}], "backups go over TLS alone"),
        ([S3 | {"endpoint": "https://s3.example.com/bucket"}], "write the host's name, with `:` and the port"),
        ([S3 | {"endpoint": "192.0.2.7:9000"}], "has the endpoint 192.0.2.7:9000, an address"),
        ([S3 | {"endpoint": "https://[2001:db8::7]:9000/"}], "write the host's name"),
        ([S3 | {"uri_style": "dns"}], "choose host or path"),
        ([S3 | {"buckets": "b"}], "has `buckets`, which a repository of type s3 does not know"),
        ([POSIX, POSIX], "number 2 is the same place as number 1"),
    ],
)
def test_wrong_ones_are_refused_in_one_line(repositories, expected):
    found = problems(*repositories)
    assert len(found) == 1, found
    assert expected in found[0]
    assert "\n" not in found[0]


def test_what_cannot_be_known_is_left_to_others():
    assert list(backup_problems({"backup_repositories": None}, "inv")) == []
    assert list(backup_problems({"backup_repositories": "x"}, "inv")) == []
