from __future__ import annotations

import errno

import pytest

from deferfs.device import FailingDevice, Fault, MemoryDevice, Request
from deferfs.errors import DeviceError
from deferfs.store.io import Discard, Flush, Job, Read, Write, run_job, runs_of


@pytest.mark.parametrize(
    ("addresses", "runs"),
    [([], []), ([5], [(5, 1)]), ([1, 2, 3], [(1, 3)]), ([1, 3, 4, 9], [(1, 1), (3, 2), (9, 1)])],
)
def test_runs(addresses: list[int], runs: list[tuple[int, int]]) -> None:
    assert runs_of(addresses) == runs


def test_runs_with_gaps_and_of_bounded_length() -> None:
    assert runs_of([1, 4, 6, 10], gap_max=2) == [(1, 6), (10, 1)]
    assert runs_of([1, 2, 3, 4, 5], count_max=2) == [(1, 2), (3, 2), (5, 1)]
    assert runs_of([1, 3, 5], gap_max=1, count_max=3) == [(1, 3), (5, 1)]


def test_a_job_is_answered_and_returns() -> None:
    device = MemoryDevice(1024)

    def job() -> Job[bytes]:
        assert (yield Write(10, [b"one", b"two"])) is None
        assert (yield Flush()) is None
        found = yield Read(9, 8)
        assert found == b"\0onetwo\0"
        yield Discard(10, 3)
        found = yield Read(10, 6)
        assert found is not None
        return found

    assert run_job(device, job()) == b"\0\0\0two"


def test_an_io_error_is_thrown_into_the_job() -> None:
    device = FailingDevice(MemoryDevice(1024), Fault(frozenset({Request.WRITE})))
    seen: list[int | None] = []

    def job() -> Job[str]:
        try:
            yield Write(0, [b"x"])
        except OSError as error:
            seen.append(error.errno)
        yield Write(0, [b"y"])
        return "done"

    assert run_job(device, job()) == "done"
    assert seen == [errno.EIO]
    assert device.read(0, 1) == b"y"


def test_an_io_error_that_the_job_does_not_handle_comes_out() -> None:
    device = FailingDevice(MemoryDevice(1024), Fault(frozenset({Request.FLUSH})))

    def job() -> Job[None]:
        yield Flush()

    with pytest.raises(DeviceError):
        run_job(device, job())
