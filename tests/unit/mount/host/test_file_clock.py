"""The clock that files are stamped with, beside the kernel's own stamps."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import time
from collections.abc import Iterator

import pytest

from deferfs.mount.host import file_clock, syscalls
from deferfs.mount.host.file_clock import FileClock

TRIES = 400


@pytest.fixture
def clock() -> Iterator[FileClock]:
    with FileClock() as made:
        yield made


class Readings(FileClock):
    """Counts how often the kernel's clock is read."""

    count = 0

    def _read(self) -> int:
        self.count += 1
        return super()._read()


def stamp_of_the_kernel() -> int:
    """The time stamp of a file whose times have not been read before."""
    fd = syscalls.memory_file("stamped")
    try:
        os.utime(fd)
        return os.fstat(fd).st_mtime_ns
    finally:
        os.close(fd)


def raise_the_floor() -> None:
    """What a process does that writes a file and looks at its times, again and again (from Linux 6.13 on)."""
    fd = syscalls.memory_file("neighbour")
    try:
        for _ in range(2):
            os.utime(fd)
            os.fstat(fd)
    finally:
        os.close(fd)


def test_the_file_clock_is_not_earlier_than_a_stamp_of_the_kernel_before(clock: FileClock) -> None:
    for _ in range(TRIES):
        raise_the_floor()
        before = stamp_of_the_kernel()
        assert before <= clock.now()


def test_a_stamp_of_the_kernel_after_it_is_not_earlier(clock: FileClock) -> None:
    for _ in range(TRIES):
        now = clock.now()
        assert now <= stamp_of_the_kernel()


def test_no_stamp_is_earlier_than_the_fine_time_that_it_was_told(clock: FileClock) -> None:
    for _ in range(TRIES):
        fine = time.time_ns()
        clock.reach(fine)
        assert fine <= clock.now()
        assert fine <= stamp_of_the_kernel() or not has_a_floor()


def has_a_floor() -> bool:
    return tuple(int(part) for part in os.uname().release.split(".")[:2]) >= (6, 13)


def test_a_time_that_is_not_of_now_costs_no_reading() -> None:
    with Readings() as clock:
        begun = clock.count
        for chosen in (0, time.time_ns() - 10**9, time.time_ns() + 3600 * 10**9):
            clock.reach(chosen)
        assert clock.count == begun
        clock.now()
        assert clock.count == begun + 1


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM, errno.EACCES])
def test_the_coarse_clock_serves_without_memory_files(
    number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(name: str, flags: int) -> int:
        ctypes.set_errno(number)
        return -1

    monkeypatch.setattr(syscalls, "_memory_file", refused)
    monkeypatch.setattr(file_clock, "coarse", lambda: 7)
    with caplog.at_level(logging.WARNING), FileClock() as clock:
        assert [clock.now(), clock.now()] == [7, 7]
        clock.reach(time.time_ns())
    assert len(caplog.records) == 1
    assert os.strerror(number) in caplog.text


def test_the_coarse_clock_serves_where_times_cannot_be_set(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(fd: int) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "utime", refused)
    monkeypatch.setattr(file_clock, "coarse", lambda: 7)
    before = os.listdir("/proc/self/fd")
    with FileClock() as clock:
        assert clock.now() == 7
        assert os.listdir("/proc/self/fd") == before
    assert len(caplog.records) == 1


def test_a_kernel_that_does_not_know_the_seal(monkeypatch: pytest.MonkeyPatch) -> None:
    """MFD_NOEXEC_SEAL is younger than memfd_create."""
    asked: list[int] = []
    create = syscalls._memory_file

    def old(name: str, flags: int) -> int:
        asked.append(flags)
        if flags & 8:
            ctypes.set_errno(errno.EINVAL)
            return -1
        return create(name, flags)

    monkeypatch.setattr(syscalls, "_memory_file", old)
    fd = syscalls.memory_file("x")
    try:
        assert asked == [9, 1]
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


def test_its_file_goes_with_it() -> None:
    before = os.listdir("/proc/self/fd")
    with FileClock() as clock:
        assert len(os.listdir("/proc/self/fd")) == len(before) + 1
        assert clock.now() > 0
    assert os.listdir("/proc/self/fd") == before
