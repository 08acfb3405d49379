import io
from pathlib import Path

import msgspec
import pytest

from deferfs.measure.report.table import counter_rows, print_report
from deferfs.measure.results import Report
from tests.unit.measure.fakes import Fake, HeavyLoad, report


def rendered(found: Report) -> str:
    """What is printed where there is no terminal."""
    stream = io.StringIO()
    print_report(found, stream)
    return stream.getvalue()


@pytest.fixture
def text(tmp_path: Path) -> str:
    return rendered(report(tmp_path, Fake(killed=("ext4",))))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def coloured(found: object, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = Terminal()
    print_report(found, stream)  # type: ignore[arg-type]
    return stream.getvalue()


def test_lines_fit_a_terminal_and_have_no_spaces_at_their_end(text: str) -> None:
    assert max(map(len, text.splitlines())) < 80
    assert not [line for line in text.splitlines() if line != line.rstrip()]
    assert "\x1b" not in text


def test_sentences_come_first(text: str) -> None:
    words = " ".join(text.split())
    assert words.startswith("48 passes of <nothing>. An operation that needed memory waited ")
    assert "ms (p50), " in words and " (worst) inline; " in words and "; with nothing to clean up " in words
    assert "deferred is between 2.86 and 3.10 times faster at p99 (95 % interval)." in words


def test_slower_is_said_as_well(tmp_path: Path) -> None:
    words = " ".join(rendered(report(tmp_path, Fake(slower={"deferred": 4.0}))).split())
    assert "times slower at p99 (95 % interval)" in words
    assert "inline faster" in words


def test_ratios_have_an_interval_and_a_verdict(text: str) -> None:
    rows = [line for line in text.splitlines() if "inline/deferred" in line]
    assert len(rows) == 4
    assert all("deferred faster" in row for row in rows)
    assert any("floor/deferred" in line and "no difference" in line for line in text.splitlines())


def test_percentiles_without_samples_are_dashes(text: str) -> None:
    row = next(line for line in text.splitlines() if line.startswith("needs memory inline"))
    assert row.split()[-3] == "-"  # p99.9 of 7,200


def test_the_table_ends_with_where_the_time_went(text: str) -> None:
    after = text[text.index("Where the time went") :]
    assert "log" in after and "The longest stall of deferfs, inline" in after and "wait_for_log" in after
    assert "6 of 6 passes ended in an OOM kill" in " ".join(text.split()) or "12 of 12" in text


def test_the_first_line_says_that_others_use_the_processors(tmp_path: Path) -> None:
    text = rendered(report(tmp_path, load=HeavyLoad))
    assert text.startswith("Machine too busy: other programs took up to 40% of the processors")
    assert "machine too busy" in text and "deferred faster" not in text


def test_a_quiet_machine_gets_colours_and_a_busy_one_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    green = "\x1b[32m"
    assert green in coloured(report(tmp_path), monkeypatch)
    busy = coloured(report(tmp_path, load=HeavyLoad), monkeypatch)
    assert "\x1b[" in busy and green not in busy


def test_an_aa_run_tells_how_often_it_found_nothing(tmp_path: Path) -> None:
    text = rendered(report(tmp_path, aa=True))
    assert "against itself" in text
    assert "90 of 100" in text
    few = rendered(report(tmp_path, pairs=2, aa=True))
    assert "not enough samples" in few


def test_of_highest_values_the_highest_of_any_pass_is_shown(tmp_path: Path) -> None:
    (result,) = report(tmp_path, pairs=2).results
    passes = [
        msgspec.structs.replace(one, counters={"used_highest_bytes": one.pair << 20, "read_bytes": one.pair << 20})
        for one in result.passes
    ]
    rows = dict(counter_rows(msgspec.structs.replace(result, passes=passes)))
    assert set(rows["used highest of all passes"]) == {"2.00 MiB"}
    assert set(rows["read"]) == {"1.50 MiB"}
