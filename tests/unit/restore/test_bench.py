"""The table of the bench: medians, and ratios to the plain copy."""

from __future__ import annotations

import re

from tests.restore.bench import FILL, ROWS, table


def test_ratios_are_speeds_next_to_the_plain_copy():
    lines = table({"restore": [8.0, 20.0, 10.0], "plain copy": [9.0, 9.0, 30.0], "pg_basebackup": [18.0]}, 900_000_000)
    cells = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:6]] for line in lines[2:]}
    assert cells["restore"] == ["8.0, 20.0, 10.0", "10.0 s", "90", "0.90"]
    assert cells["plain copy"][3] == "1.00"
    assert cells["pg_basebackup"][3] == "0.50"


def test_no_row_is_like_another():
    assert len(set(re.findall(r"first \+ 20 \* n \+ (\d+)", FILL))) == 20
    assert f"generate_series(1, {ROWS})" in FILL
