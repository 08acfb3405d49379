"""A device on which chosen requests fail."""

import errno
import os
from dataclasses import dataclass
from enum import Enum

from deferfs.device.base import Buffer, Device
from deferfs.device.wrap import WrappingDevice
from deferfs.errors import DeviceError


class Request(Enum):
    """The kinds of request that can be made to fail."""

    READ = "read"
    WRITE = "write"
    FLUSH = "flush"
    DISCARD = "discard"


@dataclass(frozen=True, slots=True)
class Fault:
    """Which requests fail, and how.

    A request matches when it is of one of `kinds` and touches the bytes `start` to before `stop`
    (flushes match any range). The first `skip` matching requests pass, then one fails, or every one
    when `sticky`. A request that fails has not changed the device.
    """

    kinds: frozenset[Request]
    skip: int = 0
    sticky: bool = False
    errno: int = errno.EIO
    start: int = 0
    stop: int | None = None

    def matches(self, kind: Request, offset: int, length: int) -> bool:
        """Whether the fault applies to a request of `length` bytes at `offset`."""
        if kind not in self.kinds:
            return False
        if kind is Request.FLUSH:
            return True
        return offset + length > self.start and (self.stop is None or offset < self.stop)


class FailingDevice(WrappingDevice):
    """Fails the requests that its faults describe; passes on all others.

    With `like_file`, no flush succeeds after one that has failed, as with `FileDevice`.
    """

    def __init__(self, inner: Device, *faults: Fault, like_file: bool = False) -> None:
        super().__init__(inner)
        self._like_file = like_file
        self._flush_errno = 0
        self._seen: dict[Fault, int] = dict.fromkeys(faults, 0)
        self.failures = 0
        """Requests that have failed so far."""

    def add(self, fault: Fault) -> None:
        """Add a fault; its count starts at zero."""
        self._seen[fault] = 0

    def heal(self) -> None:
        """Remove all faults and their lasting effects."""
        self._seen.clear()
        self._flush_errno = 0

    def _meet(self, kind: Request, offset: int = 0, length: int = 0) -> None:
        failing: Fault | None = None
        for fault, seen in self._seen.items():
            if fault.matches(kind, offset, length):
                self._seen[fault] = seen + 1
                if seen == fault.skip or (fault.sticky and seen > fault.skip):
                    failing = failing or fault
        if failing is not None:
            self.failures += 1
            text = f"{kind.value}: {os.strerror(failing.errno)} (injected)"
            raise DeviceError(failing.errno, text, self.name)

    def read(self, offset: int, length: int) -> bytes:
        """Read, or fail."""
        self._meet(Request.READ, offset, length)
        return self.inner.read(offset, length)

    def read_nowait(self, offset: int, length: int) -> bytes | None:
        """None when a fault applies to this read, so that the blocking read fails; else passed on."""
        if any(fault.matches(Request.READ, offset, length) for fault in self._seen):
            return None
        return self.inner.read_nowait(offset, length)

    def write(self, offset: int, data: Buffer) -> None:
        """Write, or fail."""
        self._meet(Request.WRITE, offset, len(data))
        self.inner.write(offset, data)

    def flush(self) -> None:
        """Flush, or fail."""
        if self._flush_errno:
            raise DeviceError(self._flush_errno, "an earlier flush has failed", self.name)
        try:
            self._meet(Request.FLUSH)
        except DeviceError as error:
            if self._like_file:
                self._flush_errno = error.errno or errno.EIO
            raise
        self.inner.flush()

    def discard(self, offset: int, length: int) -> None:
        """Discard, or fail."""
        self._meet(Request.DISCARD, offset, length)
        self.inner.discard(offset, length)
