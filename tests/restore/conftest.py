"""The converged lab, what its repository holds, and what a disaster leaves of it."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.lab.support import ROOT, wait_for
from tests.lab.verbs import CACHE, Run, Site
from tests.load.server import Server
from tests.restore.account import Row, moment

OUT = CACHE / "restore"
PROGRAMS = "/usr/local/lib/zulip-ha"
# What the design promises, in seconds.
RPO = 60


class Backups(Site):
    """The lab with its backups."""

    def __init__(self) -> None:
        super().__init__(OUT)
        self.name = site_variable("site_name")

    @property
    def host(self) -> str:
        """The backup host."""
        return self.in_group("backup")[0]

    def program(self, words: str, node: str = "") -> Any:
        """Ask one of the backups' programs for what it knows, as JSON."""
        return json.loads(self.run(node or self.host, f"{PROGRAMS}/{words}"))

    def backups(self) -> list[dict[str, Any]]:
        """What the repositories hold."""
        return list(self.program("postgresql_backup list --json")["repositories"])

    def reaches(self) -> datetime | None:
        """The point in time that the first repository reaches."""
        reached = self.backups()[0].get("reaches")
        return moment(reached) if reached else None

    def wait_until_archived(self, when: datetime, seconds: float = 120) -> None:
        """Wait until the repository reaches a moment, which is a second ago at least: it is told in whole seconds."""
        time.sleep(1.1)
        # A commit after it, in a segment that ends at once.
        self.sql("select pg_current_xact_id();\nselect pg_switch_wal()", "postgres")
        wait_for(f"WAL of {when:%H:%M:%S} in the repository", lambda: (self.reaches() or when) > when, seconds)

    def now(self) -> datetime:
        """The database's time."""
        return moment(
            self.sql("select to_char(clock_timestamp() at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
        )

    def restore(self, what: str, to: str = "latest", *options: str) -> Run:
        """Restore, with the site's name typed."""
        return self.play("restore", *facts(what=what, to=to, confirm=self.name), *options)

    def messages(self, run: str) -> list[Row]:
        """The messages of a load as the leader's tables have them, with the number of people who got each."""
        found = self.sql(
            f"""
            select coalesce(json_agg(json_build_object('id', m.id, 'nonce', split_part(m.content, ' ', 1),
                'topic', m.subject, 'content', m.content, 'rendered', m.rendered_content,
                'receivers', (select count(*) from zulip.zerver_usermessage u where u.message_id = m.id))), '[]')
            from zulip.zerver_message m where m.content like '{run}-%'
            """
        )
        return [Row(**row) for row in json.loads(found)]

    def unindexed(self) -> int:
        """How many messages the search does not know yet."""
        return int(self.sql("select count(*) from zulip.zerver_message where search_tsvector is null"))

    def identity(self) -> str:
        """System identifier and timeline: of another database both differ, of a restored one the second."""
        return self.sql(
            "select system_identifier, timeline_id from pg_control_system(), pg_control_checkpoint()", "postgres"
        )

    def hash_of(self, url: str) -> str:
        """SHA-256 of an upload as a client gets it, or why it gets none."""
        client = self.client("owner")
        answer = client.session.get(self.url + url, timeout=15)
        return hashlib.sha256(answer.content).hexdigest() if answer.status_code == 200 else f"{answer.status_code}"

    def client(self, role: str) -> Any:
        """A client of the `zulip` package with the API key that lab/state.json has."""
        client = Server(ROOT / "lab/state.json").client(self.user(role))
        client.ensure_session()
        return client

    def healthy(self) -> bool:
        """Whether the health table says that all is well."""
        return self.play("health").status == 0


class Browser:
    """Somebody who has logged in on the site's page."""

    def __init__(self, site: Site, role: str) -> None:
        self.site, self.user = site, site.user(role)
        self.session = requests.Session()
        self.session.verify = site.ca_file
        self.session.trust_env = False

    def log_in(self) -> None:
        """Fill in the form."""
        page = self.session.get(f"{self.site.url}/login/", timeout=15)
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
        assert token, f"no form to log in: {page.status_code}"
        form = {"username": self.user["email"], "password": self.user["password"], "csrfmiddlewaretoken": token[1]}
        answer = self.session.post(
            f"{self.site.url}/login/", data=form, headers={"Referer": f"{self.site.url}/login/"}, timeout=15,
            allow_redirects=False,
        )  # fmt: skip
        assert answer.status_code == 302, f"not logged in: {answer.status_code}"

    def is_logged_in(self) -> bool:
        """Whether the page comes, and no form to log in."""
        return self.session.get(self.site.url, timeout=15, allow_redirects=False).status_code == 200


def facts(**values: Any) -> list[str]:
    """Return the options that give a verb its variables."""
    return ["-e", json.dumps(values)]


def site_variable(name: str) -> str:
    """Return a plain value of the lab's own variables."""
    text = (ROOT / "inventories/lab/group_vars/all/50-site.yml").read_text()
    found = re.search(rf"^{re.escape(name)}: *(\S+)", text, re.M)
    assert found, name
    return found[1].strip("\"'")


def utc(when: datetime) -> str:
    """Return a moment as the verbs take it."""
    return when.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


@contextmanager
def overrides(text: str, inventory: str = "inventories/lab") -> Iterator[None]:
    """A lab's local layer with other content, for a while."""
    layer = ROOT / inventory / "group_vars/all/90-local.yml"
    before = layer.read_text()
    layer.write_text(f"---\n{text}")
    try:
        yield
    finally:
        layer.write_text(before)


@contextmanager
def other_cluster(site: Backups) -> Iterator[None]:
    """The repository holds the backup of a database that never was this site's, under the same name.

    The site's own is moved aside meanwhile. WAL that the leader pushes then is refused, and tried again.
    """
    # The one that a restore begins must not write into what is moved.
    assert not site.program("postgresql_backup progress --seconds 100")["running"], "a backup goes on and on"
    script = (Path(__file__).parent / "other_cluster.sh").read_text()
    site.run(site.host, f"bash -c {shlex.quote(script)} other_cluster make", check=True)
    try:
        yield
    finally:
        site.run(site.host, f"bash -c {shlex.quote(script)} other_cluster remove")


def figures(name: str, table: dict[str, str]) -> None:
    """Leave a table of figures for the documentation."""
    OUT.mkdir(parents=True, exist_ok=True)
    lines = [f"Restore, {name}, {time.strftime('%Y-%m-%d')}", "", "| what | figure |", "| --- | --- |"]
    lines += [f"| {what} | {figure} |" for what, figure in table.items()]
    text = "\n".join([*lines, ""])
    (OUT / f"{name}.md").write_text(text)
    print(f"\n{text}")


@pytest.fixture(scope="session")
def site() -> Backups:
    """The lab, with backups, healthy before the tests."""
    running = Backups()
    assert running.answers(), f"{running.url} does not answer"
    assert running.in_group("backup"), "the lab has no backup host"
    return running
