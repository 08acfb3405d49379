import io

import pytest

from deferfs.measure.table import print_report
from tests.unit.measure.reports import report


@pytest.fixture
def text() -> str:
    stream = io.StringIO()
    print_report(report(), stream)
    return stream.getvalue()


def test_no_line_is_wider_than_a_terminal(text: str) -> None:
    assert max(map(len, text.splitlines())) < 80


def test_ratios_come_first_with_their_spread(text: str) -> None:
    assert "inline/deferred" in text
    ratios = next(line for line in text.splitlines() if line.startswith("create"))
    assert ratios.count("2.83x (2.00-4.00)") == 4
    assert "deferred/none: 1 is as fast as having nothing to clean up" in text


def test_debt_and_notes_are_shown(text: str) -> None:
    assert "note: a <note>" in text
    for label in ("backlog at its end", "draining the backlog", "requests waited for log", "in the handler of FORGET"):
        assert label in text


def test_no_escape_codes_when_it_is_no_terminal(text: str) -> None:
    assert "\x1b" not in text
