"""The IO requests that jobs yield, and the synchronous loop that performs them.

A *job* (commit, checkpoint, recovery, mkfs, load) is a generator: it yields requests, is sent the answer (bytes for
`Read`, else None), and returns its result. An IO error is thrown into it. The core thus says which IO to do and in
which order, but never does it: a crash explorer can stop between any two requests.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeVar

from deferfs.device.base import Device
from deferfs.store.pump import pump

T = TypeVar("T")


@dataclass(slots=True, frozen=True)
class Read:
    """Read `length` bytes at byte `offset`; answered with the bytes."""

    offset: int
    length: int


@dataclass(slots=True, frozen=True)
class Write:
    """Write the buffers consecutively from byte `offset` on."""

    offset: int
    buffers: list[bytes]


@dataclass(slots=True, frozen=True)
class Flush:
    """A barrier: once answered, all writes before it are durable."""


@dataclass(slots=True, frozen=True)
class Discard:
    """Discard `length` unused bytes at byte `offset`; best effort."""

    offset: int
    length: int


Request = Read | Write | Flush | Discard
Job = Generator[Request, bytes | None, T]


def perform(device: Device, request: Request) -> bytes | None:
    """Carry out one request; OSError when the device fails."""
    if isinstance(request, Read):
        return device.read(request.offset, request.length)
    if isinstance(request, Write):
        device.writev(request.offset, request.buffers)
    elif isinstance(request, Flush):
        device.flush()
    else:
        device.discard(request.offset, request.length)
    return None


def run_job(device: Device, job: Job[T]) -> T:
    """Run a job to its end."""

    def at_once(request: Request) -> bytes | None:
        return perform(device, request)

    return pump(job, at_once)


def runs_of(addresses: list[int], *, gap_max: int = 0, count_max: int = 1 << 62) -> list[tuple[int, int]]:
    """[(first, count)] of the runs in the sorted `addresses`: of at most `count_max`, with at most `gap_max` others
    between two of them."""
    runs: list[tuple[int, int]] = []
    for address in addresses:
        if runs:
            first, count = runs[-1]
            if address - first - count <= gap_max and address - first < count_max:
                runs[-1] = (first, address - first + 1)
                continue
        runs.append((address, 1))
    return runs
