"""A device that keeps a log of what was done to it, byte for byte."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from deferfs.device.base import Buffer, Device
from deferfs.device.wrap import WrappingDevice


@dataclass(frozen=True, slots=True)
class WriteRecord:
    """One write request (a `writev` is one): `data` at byte `offset`.

    With `fua` it was durable by itself when it was done, and said nothing of any other write. Devices here do not write
    so; logs of other filesystems may.
    """

    offset: int
    data: bytes
    fua: bool = False


@dataclass(frozen=True, slots=True)
class DiscardRecord:
    """`length` bytes at `offset` were given up: they read as zeros or as before."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class FlushRecord:
    """Everything before is durable."""


@dataclass(frozen=True, slots=True)
class FailedFlushRecord:
    """A flush has failed: what was written before it may be lost, and no later flush proves that it is not."""


@dataclass(frozen=True, slots=True)
class MarkRecord:
    """A place in the log that the test has named."""

    label: Hashable


Record = WriteRecord | DiscardRecord | FlushRecord | FailedFlushRecord | MarkRecord


class RecordingDevice(WrappingDevice):
    """Logs every request that changes the device below, once it has succeeded, in order; and flushes that fail.

    The log and an image of the device from before the first record give every state the disk has
    been in.
    """

    def __init__(self, inner: Device) -> None:
        super().__init__(inner)
        self._records: list[Record] = []

    @property
    def records(self) -> Sequence[Record]:
        """The log so far, oldest first. Grows; not to be changed."""
        return self._records

    def mark(self, label: Hashable) -> int:
        """Add a mark to the log. Returns the number of records before it."""
        position = len(self._records)
        self._records.append(MarkRecord(label))
        return position

    def position(self, label: Hashable) -> int:
        """The number of records before the last mark with this label; `KeyError` without one."""
        for position in range(len(self._records) - 1, -1, -1):
            if self._records[position] == MarkRecord(label):
                return position
        raise KeyError(label)

    def clear(self) -> None:
        """Forget the log. The caller takes an image of the device as the new start."""
        self._records.clear()

    def write(self, offset: int, data: Buffer) -> None:
        """Write, then log."""
        self.inner.write(offset, data)
        self._records.append(WriteRecord(offset, bytes(data)))

    def flush(self) -> None:
        """Flush, then log how it went."""
        try:
            self.inner.flush()
        except OSError:
            self._records.append(FailedFlushRecord())
            raise
        self._records.append(FlushRecord())

    def discard(self, offset: int, length: int) -> None:
        """Discard, then log."""
        self.inner.discard(offset, length)
        self._records.append(DiscardRecord(offset, length))
