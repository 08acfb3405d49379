"""The forwarding that all wrappers share."""

from collections.abc import Sequence

from deferfs.device.base import Buffer, Device


class WrappingDevice:
    """Passes every request on to `inner`. A subclass overrides the ones it intercepts.

    `writev` goes through `write`, so that a wrapper handles every write, as one request, in one method.
    """

    def __init__(self, inner: Device) -> None:
        self.inner = inner

    @property
    def name(self) -> str:
        """The name of the device below."""
        return self.inner.name

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self.inner.size

    @property
    def writable(self) -> bool:
        """Whether the device below can be written."""
        return self.inner.writable

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`."""
        return self.inner.read(offset, length)

    def read_nowait(self, offset: int, length: int) -> bytes | None:
        """As `read`, or None when that would block."""
        return self.inner.read_nowait(offset, length)

    def write(self, offset: int, data: Buffer) -> None:
        """Write all of `data` at `offset`."""
        self.inner.write(offset, data)

    def writev(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """Write `buffers` one after the other from `offset` on, as one `write`."""
        self.write(offset, b"".join(buffers))

    def flush(self) -> None:
        """Make everything written before durable."""
        self.inner.flush()

    def discard(self, offset: int, length: int) -> None:
        """Declare a range unused."""
        self.inner.discard(offset, length)

    def close(self) -> None:
        """Close the device below."""
        self.inner.close()
