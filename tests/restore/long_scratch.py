"""One table and one organisation into a scratch database, for a look: the site itself does not notice.

Not part of `tests/run`: pytest tests/restore/long_scratch.py
"""

from __future__ import annotations

import pytest

from tests.restore.conftest import Backups, facts, utc


@pytest.fixture(scope="module")
def mistake(site: Backups) -> tuple[str, int]:
    """A moment, and the message that was there at it and is gone since."""
    done = site.play("backup", *facts(type="full"))
    assert done.status == 0, done.text[-6000:]
    answer = site.client("owner").send_message({"type": "stream", "to": "load", "topic": "gone", "content": "precious"})
    assert answer["result"] == "success", answer
    moment, number = site.now(), int(answer["id"])
    site.sql(
        f"begin; delete from zulip.zerver_usermessage where message_id = {number};"
        f"delete from zulip.zerver_message where id = {number}; commit"
    )
    site.wait_until_archived(site.now())
    return utc(moment), number


def untouched(site: Backups, identity: str) -> None:
    """The site goes on, as the same database on the same timeline."""
    assert site.answers()
    assert site.identity() == identity


def test_a_table_as_it_was(site: Backups, mistake: tuple[str, int]) -> None:
    moment, number = mistake
    identity = site.identity()
    done = site.restore("table", moment, *facts(table="zerver_message"))
    assert done.status == 0, done.text[-8000:]
    untouched(site, identity)
    assert site.sql(f"select count(*) from zulip.zerver_message where id = {number}") == "0", "the site's own table"
    assert "zerver_message" in done.text
    print(done.text[-2000:])


def test_an_organization_as_it_was(site: Backups, mistake: tuple[str, int]) -> None:
    moment, _ = mistake
    identity = site.identity()
    done = site.restore("organization", moment, *facts(realm=""))
    assert done.status == 0, done.text[-8000:]
    untouched(site, identity)
    print(done.text[-2000:])
