"""The site comes back from its backups: all five nodes lost under load, and a moment before a mistake.

The tests build on each other: a disaster is seen once, and looked at from several sides.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from tests.lab.support import wait_for
from tests.lab.verbs import Run, refused
from tests.load.history import Line, read
from tests.restore.account import Account, account, moment, uploads
from tests.restore.conftest import RPO, Backups, Browser, facts, figures, utc

# Long enough under load for segments of WAL that archive_timeout ends.
LOAD = 70


@dataclass
class Disaster:
    """What was there before all hosts were lost, and the run that brought it back."""

    lines: list[Line]
    files: dict[str, str]
    run: str
    browser: Browser
    restore: Run
    identity: str
    seconds: dict[str, float]


@pytest.fixture(scope="module")
def disaster(site: Backups) -> Disaster:
    """Writers at work, a backup, refusals of what must not happen; every host is lost, and restored on new ones."""
    browser = Browser(site, "member")
    browser.log_in()
    identity = site.identity().split("|")[0]
    with site.load("disaster") as load:
        began = time.monotonic()
        # What is uploaded until here has to be in the backup of the files.
        time.sleep(12)
        before = datetime.now(UTC)
        load.mark("backup")
        done = site.play("backup", *facts(type="full"))
        assert done.status == 0, done.text[-6000:]
        load.mark("backup ends")
        refuse_on_a_running_site(site)
        time.sleep(max(0.0, LOAD - (time.monotonic() - began)))
        load.mark("all hosts are lost")
        lost = time.monotonic()
        done = site.play("lab/lose.yml")
        assert done.status == 0, done.text[-3000:]
        load.kill()
    lines = read(load.history)
    run = next(line["data"]["run"] for line in lines if line.get("name") == "load begins")

    done = site.play("lab/create.yml")
    assert done.status == 0, done.text[-3000:]
    # The disk comes from a host on which the users had other numbers.
    site.run(site.host, "chown -R 4321:4321 /var/lib/pgbackrest /var/lib/restic")
    bare = time.monotonic()
    # Else it would wait whether the old site goes on to archive.
    restore = site.restore("site", "latest", *facts(old_site_stopped=True))
    assert restore.status == 0, restore.text[-8000:]
    wait_for("an answer at the virtual IP", site.answers, 60)
    served = time.monotonic()
    seconds = {"lost": bare - lost, "restore": restore.seconds, "back": served - lost}
    return Disaster(lines, uploads(lines, before), run, browser, restore, identity, seconds)


def refuse_on_a_running_site(site: Backups) -> None:
    """Each is one line, and the site goes on: writers are at work meanwhile."""
    before = site.identity()
    database = facts(what="database", to="latest")
    confirmed = facts(confirm=site.name)
    for options, words in (
        ([*database], f"confirm={site.name}"),
        ([*database, *facts(confirm="another-site")], f"confirm={site.name}"),
        ([*facts(what="database", to="2020-01-01T00:00:00Z"), *confirmed], "2020-01-01"),
        ([*facts(what="database", to="2099-01-01T00:00:00Z"), *confirmed], "2099-01-01"),
    ):
        refused(site.play("restore", *options), words)
    assert site.identity() == before


@pytest.fixture(scope="module")
def accounted(site: Backups, disaster: Disaster) -> Account:
    """What came back of what was acknowledged."""
    receivers = len([user for user in site.state["users"] if user.get("api_key")])
    # The last commit that was replayed, as the run says it.
    said = re.search(r"lost +what was written after ([^'\n]+)", disaster.restore.text)
    assert said, disaster.restore.text[-3000:]
    replayed_to = moment(said[1].strip())
    found = account(disaster.lines, site.messages(disaster.run), receivers, replayed_to)
    figures(
        "five hosts lost under load",
        {
            "messages acknowledged": str(found.acknowledged),
            "of these lost, all after the last archived WAL": str(len(found.lost)),
            "RPO of the database": f"{found.rpo:.1f} s",
            "uploads compared by hash": str(len(disaster.files)),
            "restore.yml, bare nodes to serving": f"{disaster.seconds['restore']:.0f} s",
            "from the loss to serving, with new nodes": f"{disaster.seconds['back']:.0f} s",
        },
    )
    return found


def test_every_message_acknowledged_before_the_last_archived_wal_is_there(
    disaster: Disaster, accounted: Account
) -> None:
    assert accounted.acknowledged > 100
    assert accounted.present > 0
    assert accounted.wrong == {}


def test_no_more_than_a_minute_is_lost(accounted: Account) -> None:
    assert accounted.rpo <= RPO


def test_uploads_are_identical(site: Backups, disaster: Disaster) -> None:
    assert disaster.files, "nothing was uploaded before the backup"
    assert {url: site.hash_of(url) for url in disaster.files} == disaster.files


def test_users_are_still_logged_in(site: Backups, disaster: Disaster) -> None:
    assert disaster.browser.is_logged_in(), "the session of before"
    nobody = Browser(site, "member")
    assert not nobody.is_logged_in(), "whoever is not logged in sees the form"
    for role in ("owner", "member", "bot"):
        answer = site.client(role).get_profile()
        assert answer["result"] == "success", answer
        assert answer["email"] == site.user(role)["email"]


def test_it_is_the_same_database_on_all_hosts_and_the_search_knows_every_message(
    site: Backups, disaster: Disaster
) -> None:
    assert site.identity().split("|")[0] == disaster.identity
    assert len(site.active()) == 1
    replicas = len(site.in_group("database")) - 1
    streaming = "select count(*) from pg_stat_replication where state = 'streaming'"
    wait_for("all replicas", lambda: int(site.sql(streaming, "postgres")) == replicas, 60)
    wait_for("the search", lambda: site.unindexed() == 0, 60)


def test_rows_come_back_from_just_before_a_delete(site: Backups, disaster: Disaster) -> None:
    owner = site.client("owner")
    sent = []
    for number in range(5):
        answer = owner.send_message({"type": "stream", "to": "load", "topic": "kept", "content": f"precious {number}"})
        assert answer["result"] == "success", answer
        sent.append(answer["id"])
    just_before = site.now()
    ids = ", ".join(map(str, sent))
    site.sql(
        f"begin; delete from zulip.zerver_usermessage where message_id in ({ids});"
        f"delete from zulip.zerver_message where id in ({ids}); commit"
    )
    after = owner.send_message({"type": "stream", "to": "load", "topic": "kept", "content": "after the mistake"})
    assert after["result"] == "success", after
    site.wait_until_archived(site.now())

    done = site.restore("database", utc(just_before))
    assert done.status == 0, done.text[-8000:]
    wait_for("an answer at the virtual IP", site.answers, 60)
    topic = [{"operator": "stream", "operand": "load"}, {"operator": "topic", "operand": "kept"}]
    window = {"anchor": "newest", "num_before": 50, "num_after": 0, "narrow": topic, "apply_markdown": False}
    found = site.client("owner").get_messages(window)
    assert [message["id"] for message in found["messages"]] == sent
    assert [message["content"] for message in found["messages"]] == [f"precious {number}" for number in range(5)]
    figures("a moment before a DELETE", {"restore.yml -e what=database -e to=TIME": f"{done.seconds:.0f} s"})


def test_the_old_data_directory_is_kept_until_told_otherwise(site: Backups) -> None:
    directory = site.sql("show data_directory", "postgres")
    found = site.program(f"postgresql_restore list-aside --directory {directory}", site.leader())
    assert found["aside"], "the data directory of before the restore"


def test_wal_of_the_restored_database_is_archived(site: Backups) -> None:
    # A new timeline, in the same repository.
    assert int(site.identity().split("|")[1]) > 1
    site.wait_until_archived(site.now())


def test_a_second_run_of_the_site_changes_nothing(site: Backups) -> None:
    done = site.play("site")
    assert done.status == 0, done.text[-6000:]
    assert not any(done.changed().values()), done.changed()
    assert site.healthy()
