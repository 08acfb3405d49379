"""A device with a volatile write cache: the states that a disk may have after a power failure.

**Invariant:** the durable image is the content of the device below with all unflushed writes undone, newest first.
Reads see every write at once, as on a real disk.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from deferfs.device.base import SECTOR_BYTES, Buffer, Device
from deferfs.device.record import WriteRecord
from deferfs.device.wrap import WrappingDevice

Chooser = Callable[[int, int], int]
"""`choose(index, sectors)` decides the fate of one unflushed write: the `index`-th, oldest first, which touches
`sectors` sectors. Bit i of the result says whether its i-th sector reached the disk: 0 drops the write, -1 keeps it
whole.
"""


def keep_none(index: int, sectors: int) -> int:
    """A `Chooser`: no unflushed write reaches the disk."""
    return 0


def keep_all(index: int, sectors: int) -> int:
    """A `Chooser`: every unflushed write reaches the disk whole."""
    return -1


def apply_torn(image: bytearray, writes: Iterable[WriteRecord], choose: Chooser) -> None:
    """Apply to `image` the sectors of `writes` that `choose` keeps, in the order given.

    Overlapping writes may reach a disk in another order than they were made. That gives no further states: keeping only
    the write that arrived last in a sector has the same result.
    """
    for index, write in enumerate(writes):
        end = write.offset + len(write.data)
        sectors = -(-end // SECTOR_BYTES) - write.offset // SECTOR_BYTES
        kept = choose(index, sectors)
        position = write.offset
        while position < end:
            following = min(end, position - position % SECTOR_BYTES + SECTOR_BYTES)
            if kept & 1:
                image[position:following] = write.data[position - write.offset : following - write.offset]
            kept >>= 1
            position = following


@dataclass(frozen=True, slots=True)
class _Unflushed:
    write: WriteRecord
    before: bytes


class TearingDevice(WrappingDevice):
    """Keeps what is needed to undo the writes since the last flush, and makes crash images."""

    def __init__(self, inner: Device) -> None:
        super().__init__(inner)
        self._unflushed: list[_Unflushed] = []

    @property
    def unflushed(self) -> tuple[WriteRecord, ...]:
        """The writes since the last flush, oldest first. A discard counts as a write of the resulting bytes."""
        return tuple(entry.write for entry in self._unflushed)

    def write(self, offset: int, data: Buffer) -> None:
        """Write to the volatile cache."""
        before = self.inner.read(offset, len(data))
        # Noted first: a write that fails may have reached the disk in part.
        self._unflushed.append(_Unflushed(WriteRecord(offset, bytes(data)), before))
        self.inner.write(offset, data)

    def discard(self, offset: int, length: int) -> None:
        """Discard in the volatile cache."""
        before = self.inner.read(offset, length)
        self.inner.discard(offset, length)
        left = self.inner.read(offset, length)
        self._unflushed.append(_Unflushed(WriteRecord(offset, left), before))

    def flush(self) -> None:
        """Make everything durable."""
        self.inner.flush()
        self._unflushed.clear()

    def durable(self) -> bytes:
        """The image as of the last flush."""
        return self.crash(keep_none)

    def crash(self, choose: Chooser) -> bytes:
        """A possible image after a power failure at this moment. The device is not changed.

        It is the state of the last flush plus the sectors of later writes that `choose` keeps. The image is
        deterministic if the chooser is.
        """
        image = bytearray(self.inner.read(0, self.inner.size))
        for entry in reversed(self._unflushed):
            start = entry.write.offset
            image[start : start + len(entry.before)] = entry.before
        apply_torn(image, self.unflushed, choose)
        return bytes(image)
