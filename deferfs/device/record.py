"""A device that records every change, byte for byte."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from deferfs.device.base import Buffer, Device
from deferfs.device.wrap import WrappingDevice


@dataclass(frozen=True, slots=True)
class WriteRecord:
    """One write request (a `writev` is one): `data` at byte `offset`.

    With `fua` the write was durable when it completed, independent of all others. Devices here have no such writes, but
    logs of other filesystems may.
    """

    offset: int
    data: bytes
    fua: bool = False


@dataclass(frozen=True, slots=True)
class DiscardRecord:
    """`length` bytes at `offset` were discarded: they read as zeros or as before."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class FlushRecord:
    """Everything recorded before is durable."""


@dataclass(frozen=True, slots=True)
class FailedFlushRecord:
    """A failed flush: earlier writes may be lost, and no later flush proves otherwise."""


@dataclass(frozen=True, slots=True)
class MarkRecord:
    """A position in the log, labelled by the test."""

    label: Hashable


Record = WriteRecord | DiscardRecord | FlushRecord | FailedFlushRecord | MarkRecord


class RecordingDevice(WrappingDevice):
    """Records every request that changes the device below, after it has succeeded, in order; and failed flushes.

    The log and an image of the device from before the first record give every state that the disk has been in.
    """

    def __init__(self, inner: Device) -> None:
        super().__init__(inner)
        self._records: list[Record] = []

    @property
    def records(self) -> Sequence[Record]:
        """The log so far, oldest first. It grows; the caller must not change it."""
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
        """Clear the log. The caller takes an image of the device as the new start."""
        self._records.clear()

    def write(self, offset: int, data: Buffer) -> None:
        """Write, then log."""
        self.inner.write(offset, data)
        self._records.append(WriteRecord(offset, bytes(data)))

    def flush(self) -> None:
        """Flush, then record the result."""
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
