"""Requirement files are read as pip reads them."""

from __future__ import annotations

from pathlib import Path

import pytest
from release_build.pip import reason
from release_build.requirements import Requirements, logical_lines, name_of

HASH = "--hash=sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("Foo_Bar==1.0", "foo-bar"),
        (f"foo.bar==1.0 {HASH} {HASH}", "foo-bar"),
        ("foo[extra,other]>=1 ; python_version < '3.12'", "foo"),
        ("foo ~= 1.0", "foo"),
        ("foo", "foo"),
        (f"foo @ https://h/x/archive/0123.zip {HASH}", "foo"),
        ("foo@ git+https://h/x.git@0123", "foo"),
        (f"https://h/x/archive/0123.zip#egg=foo-bar==1.0+git {HASH}", "foo-bar"),
        ("git+https://h/x.git@0123#egg=foo&subdirectory=foo", "foo"),
        ("git+https://h/x.git@0123#subdirectory=foo&egg=foo_x", "foo-x"),
        ("-e git+https://h/x.git#egg=foo", "foo"),
        ("--editable=./foo#egg=foo", "foo"),
        ("https://h/x/some_thing-1.0-py3-none-any.whl", "some-thing"),
        ("./vendor/some-thing-1.0.tar.gz", "some-thing"),
        ("https://h/x/archive/0123.zip", ""),
        ("--index-url https://h/simple", ""),
        ("-r other.txt", ""),
    ],
)
def test_names(line: str, name: str) -> None:
    assert name_of(line) == name


def test_lines_that_go_on() -> None:
    text = f"# a comment \\\nfoo==1 \\\n    {HASH} \\\n    {HASH}  # why\n\nbar @ https://h/x#egg=bar\nbaz \\\n"
    assert list(logical_lines(text)) == [f"foo==1 {HASH} {HASH}", "bar @ https://h/x#egg=bar", "baz"]


def test_requirements_are_taken_out_with_their_hashes_and_through_inclusions(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "all.txt").write_text(f"-r sub/more.txt\nFoo_x==1 \\\n  {HASH}\nbar==2 \\\n  {HASH}\n")
    (tmp_path / "sub/more.txt").write_text("-c limits.txt\nhttps://h/x.zip#egg=baz==3\nfour==4\n")
    found = Requirements()
    found.read(tmp_path / "all.txt", {"foo-x", "baz", "none"})
    assert found.lines == [f"--constraint {tmp_path}/sub/limits.txt", "four==4", f"bar==2 {HASH}"]
    assert found.dropped == {"foo-x", "baz"}
    assert found.hashed


# What pip 23 and 25 print, shortened.
GIT = """Collecting foo@ git+http://h/x.git (from -r r.txt (line 1))
  Cloning http://h/x.git to /tmp/x
  fatal: repository 'http://h/x.git/' not found
× git clone --filter=blob:none --quiet http://h/x.git /tmp/x did not run successfully.
"""
REFUSED = """Collecting other==1.0 (from -r r.txt (line 1))
Collecting foo@ http://h/x.zip (from -r r.txt (line 2))
ERROR: Could not install packages due to an OSError: HTTPConnectionPool(host='h', port=1): Max retries exceeded with \
url: /x.zip (Caused by NewConnectionError('<x>: Failed to establish a new connection: [Errno 111] Connection refused'))
"""
RETRIED = """WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError('<x>: Failed to \
establish a new connection: [Errno -2] Name or service not known')': /simple/foo/
ERROR: Could not find a version that satisfies the requirement foo==1 (from versions: none)
ERROR: No matching distribution found for foo==1
"""
HTTP = """Collecting foo==1.0 (from -r r.txt (line 1))
  ERROR: HTTP error 404 while getting http://h/x.zip#egg=foo==1.0
ERROR: Could not install requirement foo==1.0 from http://h/x.zip (from -r r.txt (line 1)) because of HTTP error 404
"""
UNHASHED = """ERROR: Can't verify hashes for these requirements because we don't have a way to hash version control \
repositories:
    foo@ git+http://h/x.git from git+http://h/x.git (from -r r.txt (line 1))
"""
MISMATCH = """ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE. If you have updated the package
    foo==1.0 from http://h/foo-1.0-py3-none-any.whl (from -r r.txt (line 1)):
        Expected sha256 00
             Got        11
"""


@pytest.mark.parametrize(
    ("output", "what", "why"),
    [
        ("ERROR: No matching distribution found for foo==1\n", "foo==1", "no index has it for this Python"),
        (RETRIED, "foo==1", "no index answered (Name or service not known)"),
        (GIT, "foo@ git+http://h/x.git", "git says repository 'http://h/x.git/' not found"),
        (REFUSED, "foo@ http://h/x.zip", "Connection refused"),
        (HTTP, "foo==1.0", "http://h/x.zip#egg=foo==1.0 answers 404"),
        (UNHASHED, "foo@", "its file is in a repository, and the others are checked by hashes"),
        (MISMATCH, "foo==1.0", "what was offered has not the hash that the release wants"),
        ("ERROR: something else\n", "", ""),
    ],
)
def test_what_pip_could_not_get(output: str, what: str, why: str) -> None:
    found, because = reason(output)
    assert found == what
    assert why in because
