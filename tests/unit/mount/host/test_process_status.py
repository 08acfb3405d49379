from pathlib import Path

import pytest

from deferfs.mount.host.process_status import being_killed, bytes_of, status_of


def write(proc: Path, text: str) -> None:
    (proc / "7").mkdir()
    (proc / "7" / "status").write_bytes(text.encode())


def test_the_fields_of_a_process(tmp_path: Path) -> None:
    write(tmp_path, "Name:\tdeferfs\nVmHWM:\t   120 kB\nGroups:\t1 2 \n")
    assert status_of(7, proc=str(tmp_path)) == {
        "Name": "\tdeferfs\n",
        "VmHWM": "\t   120 kB\n",
        "Groups": "\t1 2 \n",
    }


def test_a_name_forges_no_field(tmp_path: Path) -> None:
    write(tmp_path, "Name:\tx\rVmRSS:\t9 kB\x0bVmRSS: 9 kB\nVmRSS:\t100 kB\n")
    assert bytes_of(status_of(7, proc=str(tmp_path)), "VmRSS") == 100 * 1024


def test_a_process_that_has_gone_tells_nothing(tmp_path: Path) -> None:
    assert status_of(7, proc=str(tmp_path)) == {}


def test_fields_that_are_no_number_of_kilobytes(tmp_path: Path) -> None:
    assert [bytes_of({"VmRSS": value}, "VmRSS") for value in ("", "many", " 3 kB")] == [0, 0, 3072]
    assert bytes_of({}, "VmRSS") == 0


@pytest.mark.parametrize(
    ("lines", "killed"),
    [
        ("SigPnd:\t0000000000000100\nShdPnd:\t0000000000000000\n", True),
        ("SigPnd:\t0000000000000000\nShdPnd:\t0000000000000100\n", True),
        ("SigPnd:\t0000000000000002\nShdPnd:\t0000000000004000\n", False),
        ("SigBlk:\t0000000000000100\nSigIgn:\t0000000000000100\n", False),
        ("Name:\tforged\rSigPnd:\t0000000000000100\n", False),
        ("SigPnd:\tnonsense\n", False),
        ("SigPnd:\n", False),
    ],
)
def test_a_pending_kill_is_seen(tmp_path: Path, lines: str, killed: bool) -> None:
    (tmp_path / "5").mkdir()
    (tmp_path / "5" / "status").write_text(lines)
    assert being_killed(5, proc=str(tmp_path)) is killed
    assert not being_killed(6, proc=str(tmp_path))
