from pathlib import Path

from deferfs.measure.host.pressure import Pressure, parse_pressure, read_pressure

BOTH = """some avg10=0.12 avg60=1.00 avg300=0.00 total=1234
full avg10=0.00 avg60=0.00 avg300=0.00 total=567
"""


def test_both_lines_are_read() -> None:
    assert parse_pressure(BOTH) == Pressure(1234, 567)


def test_a_kernel_without_the_full_line() -> None:
    assert parse_pressure(BOTH.splitlines()[0]) == Pressure(1234, 0)


def test_since_subtracts() -> None:
    assert Pressure(10, 7).since(Pressure(4, 7)) == Pressure(6, 0)


def test_a_missing_file_is_no_account(tmp_path: Path) -> None:
    assert read_pressure(tmp_path / "memory.pressure") is None
    (tmp_path / "memory.pressure").write_text(BOTH)
    assert read_pressure(tmp_path / "memory.pressure") == Pressure(1234, 567)
