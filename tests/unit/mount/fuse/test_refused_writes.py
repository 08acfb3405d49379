"""The system call of a writer, from /proc."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from deferfs.errors import FsError
from deferfs.mount.fuse.refused_writes import RefusedWrites

INO, PID, SIZE = 14, 5, 1000


def calling(proc: Path, call: str, *, pos: int = 0, flags: int = os.O_WRONLY, ino: int = INO) -> None:
    """A thread in a system call on descriptor 3 (whose register holds rubbish above 32 bits, as it may)."""
    (proc / f"{PID}" / "fdinfo").mkdir(parents=True)
    (proc / f"{PID}" / "syscall").write_text(f"{call} 0x7fff00000000 0x7f0000000000\n")
    (proc / f"{PID}" / "fdinfo" / "3").write_text(f"pos:\t{pos}\nflags:\t0{flags:o}\nmnt_id:\t36\nino:\t{ino}\n")


def is_refused(proc: Path, machine: str = "x86_64", available: int = 7) -> bool:
    refused = RefusedWrites(proc=str(proc), machine=machine)
    refused.check(INO, SIZE, available, PID)  # nothing has been refused yet
    refused.available[INO] = 7
    try:
        refused.check(INO, SIZE, available, PID)
    except FsError as error:
        return error.errno == errno.ENOSPC
    return False


FD = "0xdead00000003"


@pytest.mark.parametrize(
    ("call", "pos", "refused"),
    [
        (f"1 {FD} 0x7f00 0x64 0x0 0x0 0x0", 950, True),  # write of 100 bytes
        (f"1 {FD} 0x7f00 0x32 0x0 0x0 0x0", 950, False),
        (f"18 {FD} 0x7f00 0x64 0x3b6 0x0 0x0", 0, True),  # pwrite at 950
        (f"18 {FD} 0x7f00 0x32 0x3b6 0x0 0x0", 5000, False),
        (f"20 {FD} 0x7f00 0x2 0x0 0x0 0x0", 1000, True),  # writev: unknown length
        (f"20 {FD} 0x7f00 0x2 0x0 0x0 0x0", 999, False),
        (f"296 {FD} 0x7f00 0x2 0x3e8 0x0 0x0", 0, True),  # pwritev at 1000
        (f"40 {FD} 0x4 0x0 0x64 0x0 0x0", 901, True),  # sendfile of 100 bytes
        (f"0 {FD} 0x7f00 0x64 0x0 0x0 0x0", 5000, False),  # read
        (f"5 {FD} 0x7f00 0x64 0x0 0x0 0x0", 5000, False),  # fstat
        ("running", 5000, False),
        ("", 5000, False),
        ("1", 5000, False),
    ],
)
def test_calls_that_make_the_file_longer(tmp_path: Path, call: str, pos: int, refused: bool) -> None:
    calling(tmp_path, call, pos=pos)
    assert is_refused(tmp_path) is refused


def test_an_append_makes_the_file_longer(tmp_path: Path) -> None:
    calling(tmp_path, f"1 {FD} 0x7f00 0x1 0x0 0x0 0x0", flags=os.O_WRONLY | os.O_APPEND)
    assert is_refused(tmp_path)


def test_another_file_does_not_count(tmp_path: Path) -> None:
    calling(tmp_path, f"1 {FD} 0x7f00 0x64 0x0 0x0 0x0", pos=5000, ino=INO + 1)
    assert not is_refused(tmp_path)


def test_writes_are_refused_until_there_is_more_space(tmp_path: Path) -> None:
    calling(tmp_path, f"1 {FD} 0x7f00 0x64 0x0 0x0 0x0", pos=5000)
    assert is_refused(tmp_path, available=6)
    assert not is_refused(tmp_path, available=8)


@pytest.mark.parametrize(("machine", "refused"), [("aarch64", True), ("x86_64", False), ("s390x", False)])
def test_numbers_are_those_of_the_machine(tmp_path: Path, machine: str, refused: bool) -> None:
    calling(tmp_path, f"64 {FD} 0x7f00 0x64 0x0 0x0 0x0", pos=5000)
    assert is_refused(tmp_path, machine) is refused


def test_an_unreadable_writer_is_not_refused(tmp_path: Path) -> None:
    assert not is_refused(tmp_path)
