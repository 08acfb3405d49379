"""A device in memory, for tests and crash exploration."""

from collections.abc import Sequence
from typing import Self

from deferfs.device.base import Buffer, check_range, check_write


class MemoryDevice:
    """A device on a bytearray. Everything written is durable at once, and no read ever blocks."""

    def __init__(self, size: int, *, name: str = "memory", writable: bool = True) -> None:
        self._image = bytearray(size)
        self.name = name
        self.writable = writable

    @classmethod
    def from_bytes(cls, image: Buffer, *, name: str = "memory", writable: bool = True) -> Self:
        """A device initialised with a copy of `image`."""
        device = cls(0, name=name, writable=writable)
        device._image = bytearray(image)
        return device

    @property
    def size(self) -> int:
        """Size in bytes."""
        return len(self._image)

    def snapshot(self) -> bytes:
        """A copy of the whole contents."""
        return bytes(self._image)

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`."""
        check_range(self, offset, length)
        return bytes(memoryview(self._image)[offset : offset + length])

    def read_nowait(self, offset: int, length: int) -> bytes | None:
        """As `read`: memory never blocks."""
        return self.read(offset, length)

    def write(self, offset: int, data: Buffer) -> None:
        """Write all of `data` at `offset`."""
        check_write(self, offset, len(data))
        self._image[offset : offset + len(data)] = data

    def writev(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """Write `buffers` one after the other from `offset` on."""
        self.write(offset, b"".join(buffers))

    def flush(self) -> None:
        """No effect: memory has no cache in front of it."""

    def discard(self, offset: int, length: int) -> None:
        """Zero the range."""
        check_write(self, offset, length)
        self._image[offset : offset + length] = bytes(length)

    def close(self) -> None:
        """Nothing to release; the contents stay readable for `snapshot`."""
