"""The documentation says of each fault what the code says."""

from __future__ import annotations

from pathlib import Path

from tests.faults import report

DOCS = Path(report.__file__).resolve().parents[2] / "docs/faults.md"


def test_the_table_of_faults_is_that_of_the_code():
    text = DOCS.read_text(encoding="utf-8")
    written = report.put_into(text, report.catalogue(), "<!-- faults: begin -->", "<!-- faults: end -->")
    assert text == written, "run: python -m tests.faults.report --catalogue --into docs/faults.md"


def test_there_is_a_place_for_figures():
    assert report.put_into(DOCS.read_text(encoding="utf-8"), "x")
