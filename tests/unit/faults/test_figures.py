"""Gaps that users saw, whom they are counted for, and what is wrong with a recovery."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults import figures, report
from tests.faults.figures import Seen, complaints, of_step, table


def line(kind: str, began: float, took: float = 0.05, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "client": "c", "began": began, "ended": began + took, "outcome": "ok", **more}


def step(**more: Any) -> dict[str, Any]:
    return {
        **{"name": "kill-postgres", "began": 10.0, "injected": 10.0, "healed": 20.0, "whole": 25.0, "hands": False},
        **{"problems": [], "error": "", "absent": "", "survived": True, "planned": False, "cast": {}},
        **more,
    }


def writes(*moments: float) -> list[dict[str, Any]]:
    return [line("send", moment) for moment in moments]


def test_the_gap_is_the_longest_that_has_a_part_in_the_fault():
    # 3 s before it, 5 s in it, 9 s after it.
    seen = Seen(writes(1, 4, 9, 11, 16, 18, 24, 27, 36))
    assert seen.gap("writes", 10, 25) == 6.0
    assert seen.gap("writes", 10, 15) == 5.0
    # One that began before the fault, and one that ends after the site was whole.
    assert Seen(writes(9, 13, 14, 24, 33)).gap("writes", 10, 25) == 10.0
    assert Seen(writes(9, 10.2, 10.4)).gap("writes", 10, 10.3) == pytest.approx(1.2)


def test_what_never_came_again_is_a_gap_as_well():
    assert Seen(writes(5, 9)).gap("writes", 10, 25) == pytest.approx(25 - 9.05)
    assert Seen([]).gap("writes", 10, 25) is None


def test_failed_requests_do_not_end_a_gap():
    lines = [*writes(9, 20), line("send", 12, outcome="unknown", error="502")]
    found = of_step(Seen(lines), step(), [], 0, 99)
    assert found["writes"] == 11.0
    assert found["failed"] == 1


def test_a_visit_that_fails_is_counted_by_what_failed_in_it():
    lines = [*writes(9, 20), line("visit", 12, outcome="unknown", error="502"), line("visit", 13), line("visit", 19)]
    found = of_step(Seen(lines), step(), [], 0, 99)
    assert found["failed"] == 0
    assert found["visits"] == 6.0


def test_the_slowest_reader_counts():
    lines = [
        *(line("poll", moment, client="reader1", delivered=[["n", 1]]) for moment in (9, 11, 26)),
        *(line("poll", moment, client="reader2", delivered=[["n", 1]]) for moment in (9, 12, 13, 20, 26)),
        line("poll", 15, client="reader1", delivered=[]),
    ]
    assert of_step(Seen(lines), step(), [], 0, 99)["events"] == 15.0


def test_lost_messages_belong_to_the_fault_after_which_the_site_was_whole_next():
    assert of_step(Seen([]), step(), [4.0, 9.9, 12.0, 25.5], 5.0, 99)["lost"] == 2


def test_a_fault_that_is_survived_does_not_stop_the_site_until_it_is_healed():
    down = of_step(Seen(writes(9, 11, 21)), step(), [], 0, 99)
    assert down["went_on"] is False
    assert "nothing was stored in the last 5 s of it" in complaints(step(figures=down))[0]
    assert complaints(step(figures=down, survived=False)) == []
    up = of_step(Seen(writes(9, 17, 21)), step(), [], 0, 99)
    assert complaints(step(figures=up)) == []
    # One that is over at once says nothing of this.
    assert of_step(Seen([]), step(healed=11.0), [], 0, 99)["went_on"] is None


FINE = {"went_on": None, "failed": 3}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"error": "no such unit"}, "it did not happen: no such unit"),
        ({"hands": True, "problems": ["app1: redis down"]}, "it took hands: app1: redis down"),
        ({"whole": None, "problems": ["a", "b", "c", "d"]}, "not whole again, also by hand: a; b; c …"),
        ({"planned": True}, "3 requests failed, and none may"),
    ],
)
def test_each_complaint(more: dict[str, Any], expected: str):
    found = complaints(step(figures=FINE, **more))
    assert len(found) == 1
    assert expected in found[0]


def test_nothing_to_complain_of():
    assert complaints(step(figures=FINE)) == []


def row(gap: float | None, **more: Any) -> dict[str, Any]:
    gaps: dict[str, Any] = dict.fromkeys(figures.GAPS, gap)
    return step(figures={**gaps, "failed": 2, "lost": 1, "went_on": None}, **more)


def test_the_table_has_the_spread_of_what_happened():
    steps = [row(float(n)) for n in range(1, 21)]
    steps += [row(99.0, error="x"), row(99.0, absent="x"), row(None, hands=True), row(3.0, name="freeze-leader")]
    found = {one["name"]: one for one in table(steps)}
    assert found["kill-postgres"]["writes"] == {"p50": 10.0, "p95": 19.0, "max": 20.0}
    assert (found["kill-postgres"]["n"], found["kill-postgres"]["by_itself"]) == (21, 20)
    assert (found["kill-postgres"]["failed"], found["kill-postgres"]["lost"]) == (42, 21)
    assert found["freeze-leader"]["seconds_to_whole"] == 5.0


def result(**more: Any) -> dict[str, Any]:
    load = {
        "messages": {"acknowledged": 700, "lost": ["n1"], "unknown": 4},
        "plans": {"acknowledged": 5, "lost": [], "twice": ["p1"]},
        "jobs": {"caused": 60, "undone": []},
    }
    sampled = {"looks": 9000, "two_active": [], "two_leaders": [{}]}
    return {
        **{"name": "run", "seed": 7, "revokes_early": False, "load": load, "samples": sampled},
        **{"steps": [row(1.5), row(2.5, jobs_waiting=3)], "violations": ["x was y"]},
        **more,
    }


def test_the_report_adds_up_runs_and_hides_no_violation():
    text = report.markdown([result(), result(seed=9)])
    assert "| kill-postgres | 4 | 1.5 / 2.5 / 2.5 |" in text
    assert "4 faults in 2 runs, seeds 7, 9; early revocation off" in text
    assert "1400 messages acknowledged, 2 lost, 8 without an answer" in text
    assert "4 of 4 faults that the design survives" in text
    assert "0 times two active hosts, 2 commits of a second leader" in text
    assert "10 scheduled messages, 0 never sent, 2 sent twice" in text
    assert "120 jobs, 0 never done, 6 waited for a lost host in 2 losses" in text
    assert text.count("* **violated** run: x was y") == 2
    assert "Nothing was violated." in report.markdown([result(violations=[])])


def test_a_report_goes_between_its_marks_alone():
    text = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    assert report.put_into(text, "new \\1\n") == f"before\n{report.BEGIN}\nnew \\1\n{report.END}\nafter\n"
    with pytest.raises(ValueError, match="have to be there once"):
        report.put_into("nothing", "new")


def test_the_program_writes_into_a_file(tmp_path, capsys):
    import json

    (tmp_path / "a.faults.json").write_text(json.dumps(result()))
    page = tmp_path / "page.md"
    page.write_text(f"{report.BEGIN}\n{report.END}\n<!-- faults: begin -->\n<!-- faults: end -->\n")
    assert report.main([str(tmp_path / "a.faults.json"), "--into", str(page)]) == 0
    assert report.main(["--catalogue", "--into", str(page)]) == 0
    assert "| kill-postgres | 2 |" in page.read_text()
    assert "| etcd-majority | " in page.read_text()
    assert report.main(["--catalogue"]) == 0
    assert "| fault | what users see |" in capsys.readouterr().out
