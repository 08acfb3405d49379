"""The interface of every block device, and the range check they share."""

import errno
from collections.abc import Sequence
from typing import Final, Protocol

from deferfs.errors import DeviceError

Buffer = bytes | bytearray | memoryview
"""Data to write. A memoryview has to be contiguous bytes (format "B")."""

SECTOR_BYTES: Final = 512
"""The largest unit that every disk writes atomically."""


class Device(Protocol):
    """A fixed number of bytes that can be read, written and made durable.

    Offsets and lengths are bytes and need no alignment. Every failure is a `DeviceError`: EIO for a request outside the
    device, EROFS for a write to a read-only device.
    """

    @property
    def name(self) -> str:
        """The path, or a word such as "memory": for messages."""

    @property
    def size(self) -> int:
        """Size in bytes."""

    @property
    def writable(self) -> bool:
        """Whether `write`, `writev` and `discard` are allowed."""

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`; may block."""

    def read_nowait(self, offset: int, length: int) -> bytes | None:
        """As `read`, or None when that would block, or might."""

    def write(self, offset: int, data: Buffer) -> None:
        """Write all of `data` at `offset`. Durable only after the next `flush`."""

    def writev(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """Write `buffers` one after the other from `offset` on, as one request."""

    def flush(self) -> None:
        """Barrier: everything written before is durable when this returns."""

    def discard(self, offset: int, length: int) -> None:
        """Declare a range unused. Best effort: it then reads as zeros or as before."""

    def close(self) -> None:
        """Release the device. Does not flush. A second call does nothing."""


def check_range(device: Device, offset: int, length: int) -> None:
    """Raise `DeviceError` (EIO) unless `length` bytes at `offset` lie inside the device."""
    if offset < 0 or length < 0 or offset + length > device.size:
        message = f"{length} bytes at {offset} are outside of a device of {device.size} bytes"
        raise DeviceError(errno.EIO, message, device.name)


def check_write(device: Device, offset: int, length: int) -> None:
    """As `check_range`, and raise `DeviceError` (EROFS) when the device is read-only."""
    if not device.writable:
        raise DeviceError(errno.EROFS, "the device was opened read-only", device.name)
    check_range(device, offset, length)
