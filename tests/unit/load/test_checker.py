"""The checker sees each thing that can go wrong, and passes what is right."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.load.checker import Thresholds, judge, longest_pause, measure
from tests.load.picture import draw

RUN = "load00000000"
WRITERS, SECONDS, WRITES, READS = 2, 20, 5, 16


class Run:
    """A faultless run of 20 s with 2 writers, 2 readers and 21 requests/s; tests then spoil it."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.final: list[dict[str, Any]] = []
        for reader in ("reader1", "reader2"):
            self.request("register", reader, -0.5)
        self.mark("load begins", 0, run=RUN, channel="load", anchor=1)
        for n in range(SECONDS * WRITES):
            self.write(n, n / WRITES)
        for n in range(SECONDS * READS):
            self.request("read", "query1", n / READS)
        self.mark("load ends", SECONDS)
        for reader in ("reader1", "reader2"):
            self.mark("reader ends", SECONDS + 1, client=reader, complete=True)
        self.mark("history ends", SECONDS + 1, stuck=[])

    def request(self, kind: str, client: str, began: float, took: float = 0.03, **more: Any) -> dict[str, Any]:
        line = {
            **{"kind": kind, "client": client, "scheduled": began, "began": began, "ended": began + took},
            **{"at": f"at {began}", "outcome": "ok", "status": 200},
            **more,
        }
        self.lines.append(line)
        return line

    def write(self, n: int, began: float) -> None:
        writer, seq = f"writer{n % WRITERS + 1}", n // WRITERS + 1
        nonce, topic = f"{RUN}-{writer}-{seq}", f"{RUN} {writer}"
        self.request("send", writer, began, nonce=nonce, seq=seq, topic=topic, id=100 + n)
        self.final.append({"nonce": nonce, "id": 100 + n, "topic": topic})
        for reader in ("reader1", "reader2"):
            self.request("poll", reader, began, 0.04, delivered=[[nonce, 100 + n]])

    def mark(self, name: str, began: float, **data: Any) -> None:
        self.lines.append({"kind": "mark", "name": name, "began": began, "at": f"at {began}", "data": data})

    def named(self, name: str) -> dict[str, Any]:
        return next(line for line in self.lines if line.get("name") == name)

    def of(self, kind: str, n: int = 0, client: str = "") -> dict[str, Any]:
        return [line for line in self.lines if line["kind"] == kind and client in ("", line.get("client"))][n]

    def remove(self, *kinds: str) -> None:
        self.lines = [line for line in self.lines if line["kind"] not in kinds]

    def measures(self, **options: Any) -> dict[str, Any]:
        lines = sorted(copy.deepcopy(self.lines), key=lambda line: line["began"])
        return measure(lines, sorted(self.final, key=lambda one: one["id"]), **options)

    def wrong(self, allowed: Thresholds | None = None, **options: Any) -> list[str]:
        return judge(self.measures(**options), allowed or Thresholds())


@pytest.fixture
def run() -> Run:
    return Run()


def only(found: list[str], *parts: str) -> None:
    """Check that each of these was found, and nothing else."""
    assert len(found) == len(parts), found
    for part in parts:
        assert any(part in one for one in found), f"{part!r} is not in {found}"


def test_a_faultless_run_passes(run: Run):
    assert run.wrong() == []
    measures = run.measures()
    assert measures["rate"] == 21
    assert measures["lowest_rate_of_10_s"] == 21
    assert measures["event_gap"] == pytest.approx(0.01, abs=0.001)
    assert measures["messages"]["acknowledged"] == 100
    assert measures["latency"]["send"]["p95"] == pytest.approx(0.03)


# --- messages --------------------------------------------------------------------------------------------------------


def test_an_acknowledged_message_that_is_gone_is_lost(run: Run):
    lost = run.final.pop(7)
    only(run.wrong(), f"1 acknowledged messages are lost: {lost['nonce']}")


def test_an_acknowledged_message_with_another_id_is_lost(run: Run):
    run.final[-1]["id"] += 50
    only(run.wrong(), "1 acknowledged messages are lost")


def test_an_unanswered_message_may_be_there_or_not_but_its_request_failed(run: Run):
    for n in (10, 11):
        run.of("send", n).update(outcome="unknown", error="reset")
    gone = run.of("send", 11)["nonce"]
    run.final = [one for one in run.final if one["nonce"] != gone]
    for reader in ("reader1", "reader2"):
        run.of("poll", 11, reader)["delivered"] = []
    only(run.wrong(), "2 requests failed, 0 may; 2 of them: send: reset")
    assert run.wrong(Thresholds(max_failed=2)) == []
    assert run.measures()["messages"]["unknown_present"] == 1


def test_a_refused_message_that_was_stored(run: Run):
    run.of("send", 4).update(outcome="refused", error="400")
    only(run.wrong(Thresholds(max_failed=1)), "1 refused messages were stored")


def test_a_message_that_is_stored_twice(run: Run):
    run.final.append({**run.final[3], "id": 999})
    found = run.wrong()
    assert any("1 messages are stored twice" in one for one in found), found


def test_a_message_that_nobody_sent(run: Run):
    run.final.append({"nonce": f"{RUN}-writer1-777", "id": 999, "topic": f"{RUN} writer1"})
    only(run.wrong(), "1 messages are stored that nobody sent")


def test_messages_of_other_runs_do_not_matter(run: Run):
    run.final += [{"nonce": "load11111111-writer1-1", "id": number, "topic": "x"} for number in (50, 51)]
    assert run.wrong() == []


def test_messages_in_another_order_than_they_were_sent_in(run: Run):
    first, second = run.of("send", 10), run.of("send", 10 + WRITERS)
    first["id"], second["id"] = second["id"], first["id"]
    run.final[10]["id"], run.final[10 + WRITERS]["id"] = run.final[10 + WRITERS]["id"], run.final[10]["id"]
    only(run.wrong(), "1 messages are stored in another order")


def test_an_unanswered_message_may_be_stored_late(run: Run):
    run.of("send", 10).update(outcome="unknown", error="timeout")
    run.final[10]["id"] = 900
    assert run.wrong(Thresholds(max_failed=1)) == []


def test_a_message_in_another_topic(run: Run):
    run.final[5]["topic"] = "elsewhere"
    only(run.wrong(), "1 messages are in another topic")


def test_an_upload_that_is_gone(run: Run):
    only(
        run.wrong(uploads_lost=["/user_uploads/1 (404)"]), "1 acknowledged uploads are lost or changed: /user_uploads/1"
    )


# --- events ----------------------------------------------------------------------------------------------------------


def test_an_event_that_comes_too_late(run: Run):
    run.of("poll", 50, "reader2")["ended"] += 6
    for n in range(51, 100):
        run.of("poll", n, "reader2")["ended"] += 6
    found = run.wrong()
    only(found, "reader2: an event came 6.01 s after its message was acknowledged, 5.0 s are allowed")
    assert run.wrong(Thresholds(max_gap=7)) == []


def test_an_event_that_never_comes(run: Run):
    missing = run.of("poll", 50, "reader1")["delivered"].pop()
    only(run.wrong(), f"reader1: 1 acknowledged messages never came: {missing[0]}")


def test_what_was_sent_before_a_reader_listened_is_not_owed_to_it(run: Run):
    for line in run.lines:
        if line.get("client") == "reader1" and line["kind"] == "register":
            line.update(began=9.99, ended=10.0)
    run.lines = [line for line in run.lines if not (line.get("client") == "reader1" and line["began"] < 9.99)]
    assert run.wrong() == []


def test_an_event_that_comes_twice(run: Run):
    twice = run.of("poll", 50, "reader1")["delivered"]
    run.of("poll", 51, "reader1")["delivered"][:0] = twice
    only(run.wrong(), f"reader1: 1 messages came twice: {twice[0][0]}")


def test_events_in_another_order(run: Run):
    first, second = (run.of("poll", n, "reader1") for n in (50, 50 + WRITERS))
    first["delivered"], second["delivered"] = second["delivered"], first["delivered"]
    only(run.wrong(), "reader1: 1 messages came in another order")


def test_a_queue_that_is_lost_is_no_failure_but_its_gap_counts(run: Run):
    late = []
    for n in range(50, 66):
        line = run.of("poll", n, "reader1")
        late += line["delivered"]
        line.update(outcome="requeued", delivered=[])
    run.request("register", "reader1", 13.0)
    # Overlaps with what the new queue delivers again, which is right.
    run.request("catchup", "reader1", 13.1, delivered=[*late, *run.of("poll", 66, "reader1")["delivered"]])
    assert run.wrong() == []
    measures = run.measures()
    assert measures["reregistered"] == 16
    assert measures["event_gap"] == pytest.approx(3.1, abs=0.01)
    only(run.wrong(Thresholds(max_gap=3)), "reader1: an event came 3.1 s after")
    only(run.wrong(Thresholds(max_reregistered=0)), "readers lost their event queue 16 times, 0 are allowed")


def test_a_reader_that_never_got_the_last_message(run: Run):
    next(line for line in run.lines if line.get("name") == "reader ends")["data"]["complete"] = False
    only(run.wrong(), "reader1 never got the last message of the run")


# --- requests --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["read", "poll", "register"])
def test_a_failed_request_of_any_kind(run: Run, kind: str):
    run.mark("database moves", 1.0)
    run.request(kind, "other", 2.0, outcome="unknown", error="502 without JSON")
    measures = run.measures()
    assert measures["errors"] == {f"{kind}: 502 without JSON": 1}
    assert (measures["examples"][0]["t"], measures["examples"][0]["phase"]) == (2.0, "database moves")
    found = run.wrong()
    assert f"1 requests failed, 0 may; 1 of them: {kind}: 502 without JSON" in found


def test_an_answer_after_more_than_15_s_has_failed_though_its_message_counts(run: Run):
    run.of("send", 99)["ended"] += 15
    only(run.wrong(), "1 of them: send: answered only after more than 15 s")


def test_a_poll_that_the_client_repeated_by_itself_has_failed(run: Run):
    run.request("poll", "reader1", 1.0, 91.0, delivered=[])
    assert run.measures()["errors"] == {"poll: answered only after more than 85 s": 1}


def test_a_poll_may_take_as_long_as_a_heartbeat(run: Run):
    run.request("poll", "reader1", 1.0, 56.0, delivered=[])
    assert run.wrong() == []


def test_the_rate_limit_is_a_defect_of_the_load(run: Run):
    run.of("read", 3).update(outcome="limited", error="429")
    only(run.wrong(), "1 requests hit the server's rate limit")


def test_a_stall_is_seen_also_at_the_end(run: Run):
    run.lines = [line for line in run.lines if line["kind"] not in ("read", "send") or line["began"] < 13]
    stall = run.measures()["stall"]["all"]
    assert (stall["seconds"], stall["t"]) == (pytest.approx(7.03, abs=0.1), pytest.approx(12.97, abs=0.1))
    assert any("nothing succeeded for" in one for one in run.wrong(Thresholds(max_stall=5)))
    assert not any("nothing succeeded for" in one for one in run.wrong())


def test_failures_do_not_end_a_stall(run: Run):
    for line in run.lines:
        if line["kind"] in ("read", "send") and 5 <= line["began"] < 9:
            line.update(outcome="unknown", error="x")
    assert run.measures()["stall"]["all"]["seconds"] == pytest.approx(4.0, abs=0.2)
    assert run.measures()["stall"]["write"]["seconds"] == pytest.approx(4.2, abs=0.05)


def test_latency_includes_missed_slots(run: Run):
    run.lines.append(
        {"kind": "missed", "of": "send", "client": "writer1", "began": 4.0, "ended": 12.0, "slots": 4, "interval": 2.0}
    )
    measures = run.measures()
    assert measures["latency"]["send"]["max"] == 8.0
    assert measures["latency"]["send"]["n"] == 104
    assert measures["missed_slots"] == 4
    # Each slot waited from its own moment on: 8, 6, 4 and 2 s.
    run.lines = [line for line in run.lines if line["kind"] != "send"]
    assert run.measures()["latency"]["send"] == {"n": 4, "p50": 4.0, "p95": 8.0, "max": 8.0}


def test_latency_counts_from_the_schedule(run: Run):
    run.of("send", 0)["scheduled"] -= 2
    assert run.measures()["latency"]["send"]["max"] == pytest.approx(2.03)


def test_the_longest_pause_of_moments_in_any_order():
    assert longest_pause([7.0, 1.0, 3.0, 99.0], 0.0, 9.0) == (4.0, 3.0)


# --- runs that tested nothing ----------------------------------------------------------------------------------------


def test_a_rate_that_is_too_low(run: Run):
    only(run.wrong(Thresholds(min_rate=22)), "21.0 requests/s is below 22")
    run.remove("read")
    only(run.wrong(), "5.0 requests/s is below 20")


def test_too_few_requests(run: Run):
    only(run.wrong(Thresholds(min_requests=1000)), "only 420 requests were made, at least 1000 are needed")


def test_no_reader(run: Run):
    run.remove("poll", "register")
    only(run.wrong(), "there was no reader")


def test_a_reader_that_got_nothing(run: Run):
    for line in run.lines:
        if line.get("client") == "reader2":
            line.pop("delivered", None)
    only(run.wrong(), "reader2 got no message at all", "reader2: 100 acknowledged messages never came")


def test_no_message(run: Run):
    run.remove("send")
    run.final.clear()
    assert "no message was acknowledged" in run.wrong(Thresholds(min_rate=1))


def test_an_empty_history():
    found = judge(measure([], []), Thresholds())
    assert {"no message was acknowledged", "there was no reader"} < set(found)


def test_a_history_that_is_cut_off(run: Run):
    run.lines = [line for line in run.lines if line["began"] < 15 and "ends" not in line.get("name", "")]
    sent = {line["nonce"] for line in run.lines if line["kind"] == "send"}
    run.final = [one for one in run.final if one["nonce"] in sent]
    # A reader was about to be told.
    run.of("poll", -1, "reader1")["delivered"] = []
    only(run.wrong(), "the load did not end by itself")
    # But it had the time to be told of this one.
    run.of("poll", 10, "reader1")["delivered"] = []
    only(run.wrong(), "the load did not end by itself", "reader1: 1 acknowledged messages never came")


def test_a_client_that_died_or_hangs(run: Run):
    run.mark("client died", 3.0, client="query1", error="KeyError: 'x'")
    run.named("history ends")["data"]["stuck"] = ["writer1"]
    only(run.wrong(), "query1 died of a defect of the load: KeyError", "clients did not end: writer1")


# --- the picture -----------------------------------------------------------------------------------------------------


def test_the_picture_shows_marks_and_failures(run: Run):
    import xml.etree.ElementTree as ElementTree

    run.mark("kill <db1> & co", 5.0)
    run.request("read", "query1", 6.0, outcome="unknown", error="<html>")
    picture = draw(run.lines)
    texts = [element.text for element in ElementTree.fromstring(picture).iter()]
    assert "kill <db1> & co" in texts
    assert "read: <html>" in texts
    assert picture.count("<circle") == 1


def test_the_picture_shows_when_nothing_succeeded_and_what_was_broken(run: Run):
    healthy = draw(run.lines)
    assert 'height="8" fill="#d62728"' not in healthy
    assert "#fff3e0" not in healthy
    run.mark("fault cut", 5.0)
    run.mark("whole", 9.0)
    run.lines.sort(key=lambda line: line["began"])
    for line in run.lines:
        if line["kind"] in ("read", "send") and 5 <= line["began"] < 9:
            line.update(outcome="unknown", error="x")
    broken = draw(run.lines)
    assert broken.count('height="8" fill="#d62728"') == 1
    assert broken.count("#fff3e0") == 1


def test_the_picture_of_nothing():
    assert draw([]).startswith("<svg")


# --- what the server does by itself ----------------------------------------------------------------------------------


def plan(run: Run, number: int = 1, **more: Any) -> str:
    """Schedule a message, which was sent."""
    nonce = f"{RUN}-planner1-{number}"
    run.request("schedule", "planner1", 3.0 + number, nonce=nonce, **more)
    run.final.append({"nonce": nonce, "id": 500 + number, "topic": f"{RUN} planner1"})
    return nonce


def test_a_scheduled_message_that_is_sent_once_is_right(run: Run):
    plan(run)
    assert run.wrong() == []
    assert run.measures()["plans"]["acknowledged"] == 1


def test_a_scheduled_message_that_is_never_sent(run: Run):
    nonce = plan(run)
    run.final.pop()
    only(run.wrong(), f"1 messages that the server was to send later were never sent: {nonce}")


def test_a_scheduled_message_that_is_sent_twice(run: Run):
    plan(run)
    run.final.append({**run.final[-1], "id": 900})
    assert any("were sent twice" in one for one in run.wrong())


def test_a_scheduled_message_without_an_answer_may_be_sent_once_and_one_that_was_refused_may_not(run: Run):
    plan(run, outcome="unknown", error="reset")
    assert run.wrong(Thresholds(max_failed=1)) == []
    plan(run, 2, outcome="refused", error="400")
    only(run.wrong(Thresholds(max_failed=2)), "1 messages were sent later though that was refused")


def test_a_job_that_is_never_done(run: Run):
    line = run.of("send", 20)
    line["job"] = True
    done = next(one for one in run.final if one["nonce"] == line["nonce"])
    only(run.wrong(), f"1 of 1 jobs were never done: {line['nonce']}")
    done["job_done"] = True
    assert run.wrong() == []
    # Nobody was promised anything.
    line.update(outcome="unknown", error="reset")
    done["job_done"] = False
    assert run.wrong(Thresholds(max_failed=1)) == []


def profile(run: Run, began: float, role: int, email: str = "ann") -> None:
    run.request("read", "query2", began, what="profile", email=email, role=role)


def test_a_read_that_shows_what_had_been_changed_before(run: Run):
    profile(run, 1.0, 400)
    run.request("change", "operator", 2.0, 0.5, email="ann", role=300)
    # While it is changed either is right, and another user's role says nothing.
    profile(run, 2.2, 400)
    profile(run, 2.3, 300)
    profile(run, 3.0, 300)
    profile(run, 3.0, 400, "bob")
    assert run.wrong() == []
    profile(run, 4.0, 400)
    only(run.wrong(), "1 reads show what had been changed before: query2 at 4.0 s: 400, not 300")
    run.request("change", "operator", 3.5, 0.2, email="ann", role=400)
    assert run.wrong() == []


def test_after_a_change_without_an_answer_nothing_is_stale(run: Run):
    run.request("change", "operator", 2.0, 0.5, email="ann", role=300)
    run.request("change", "operator", 3.0, 0.5, email="ann", role=400, outcome="unknown", error="killed")
    profile(run, 4.0, 300)
    profile(run, 5.0, 400)
    assert run.wrong(Thresholds(max_failed=1)) == []
