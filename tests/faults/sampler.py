"""Runs in a node for as long as somebody reads it: looks ten times a second who this host believes to be.

One process for the whole run, because starting one for each look would cost more than the look. Times are
CLOCK_MONOTONIC, which all containers of a machine share, so that what two hosts say can be put on one line of time.
Equal looks in a row become one segment {from, to, n, state}: every look in it saw the state, and none was further from
the next than GAP. A host that was frozen, or had no CPU, so begins a new one.

  app VIRTUAL-IP   state: the words `active` (the lease's marker), `vip` (the address is on this host)
  database         also {from, to, timeline}: a commit that was acknowledged, and when it was asked for

Only the standard library, and psycopg2 on database hosts.
"""

import json
import os
import select
import sys
import time

PERIOD = 0.1
GAP = 0.25
REPORT = 0.5
ACTIVE = "/run/zulip-ha/active"
# A transaction that writes WAL and nothing else, unless this is a standby. A segment's name begins with the timeline.
COMMIT = """
select case when pg_is_in_recovery() then '' else
    left(pg_logical_emit_message(true, 'zulip-ha-fault', 'x')::text, 0)
    || left(pg_walfile_name(pg_current_wal_lsn()), 8) end
"""


def say(**line):
    """Print one line; whoever reads may be gone."""
    print(json.dumps(line), flush=True)


class Segments:
    """Joins equal looks."""

    def __init__(self, put=say):
        self.put = put
        self.open = None

    def add(self, moment, state):
        """Take one look."""
        one = self.open
        if one and one["state"] == state and moment - one["to"] <= GAP:
            one["to"], one["n"] = moment, one["n"] + 1
            if moment - one["from"] < REPORT:
                return
            self.close()
            # The next one goes on where this one ends, so that nothing is between them.
            self.open = {"from": moment, "to": moment, "n": 0, "state": state}
            return
        self.close()
        self.open = {"from": moment, "to": moment, "n": 1, "state": state}

    def waited(self, begin, end):
        """Take a look that lasted: an answer was waited for, so nothing was answered meanwhile."""
        if end - begin > GAP:
            self.close()
            self.put(**{"from": begin, "to": end, "n": 1, "state": "waiting"})

    def close(self):
        """Print what there is."""
        if self.open and self.open["n"]:
            self.put(**self.open)
        self.open = None


class App:
    """An app host."""

    def __init__(self, virtual_ip):
        self.local = f"|-- {virtual_ip}\n" if virtual_ip else None
        self.segments = Segments()

    def look(self):
        """What this host would do for whoever asks it now."""
        state = ["active"] if os.path.exists(ACTIVE) else []
        if self.local:
            with open("/proc/net/fib_trie") as trie:
                state += ["vip"] if self.local in trie.read() else []
        self.segments.add(time.monotonic(), " ".join(state))


class Database:
    """A database host: tries to commit something, and says which commits were acknowledged."""

    def __init__(self):
        import psycopg2

        self.psycopg2, self.connection, self.next = psycopg2, None, 0.0
        self.segments = Segments()

    def look(self):
        """Commit, if this host takes it. A commit that waits for a standby holds this process, as it would a user."""
        began = time.monotonic()
        try:
            if self.connection is None:
                if time.monotonic() < self.next:
                    self.segments.add(time.monotonic(), "down")
                    return
                self.connection = self.psycopg2.connect("dbname=postgres application_name=zulip-ha-fault")
                self.connection.autocommit = True
            with self.connection.cursor() as cursor:
                began = time.monotonic()
                cursor.execute(COMMIT)
                timeline = cursor.fetchone()[0]
            ended = time.monotonic()
        except (self.psycopg2.Error, OSError):
            if self.connection is not None:
                self.connection.close()
                self.connection = None
            # A server that is down is asked twice a second, not ten times.
            self.next = time.monotonic() + 5 * PERIOD
            self.segments.waited(began, time.monotonic())
            self.segments.add(time.monotonic(), "down")
            return
        self.segments.waited(began, ended)
        self.segments.add(ended, "writable" if timeline else "standby")
        if timeline:
            say(**{"from": began, "to": ended, "timeline": int(timeline, 16)})


def main(arguments):
    """Look until standard input ends."""
    watched = App(arguments[1] if len(arguments) > 1 else "") if arguments[0] == "app" else Database()
    due = time.monotonic()
    while True:
        watched.look()
        due = max(due + PERIOD, time.monotonic())
        ready, _, _ = select.select([sys.stdin], [], [], max(0.0, due - time.monotonic()))
        if ready and not os.read(0, 65536):
            return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
