"""A slow device: every request is delayed."""

from collections.abc import Callable
from dataclasses import dataclass

from deferfs.device.base import Buffer, Device
from deferfs.device.wrap import WrappingDevice


@dataclass(frozen=True, slots=True)
class Delays:
    """Delay of each kind of request, in seconds."""

    read_seconds: float = 0.0
    write_seconds: float = 0.0
    flush_seconds: float = 0.0
    discard_seconds: float = 0.0


class DelayingDevice(WrappingDevice):
    """Calls `sleep(seconds)` before each request whose kind has a delay. `delays` may be
    replaced at any time.
    """

    def __init__(self, inner: Device, sleep: Callable[[float], None], delays: Delays) -> None:
        super().__init__(inner)
        self._sleep = sleep
        self.delays = delays

    def _wait(self, seconds: float) -> None:
        if seconds > 0:
            self._sleep(seconds)

    def read(self, offset: int, length: int) -> bytes:
        """Wait, then read."""
        self._wait(self.delays.read_seconds)
        return self.inner.read(offset, length)

    def read_nowait(self, offset: int, length: int) -> bytes | None:
        """None while reads are delayed, as they would block."""
        if self.delays.read_seconds > 0:
            return None
        return self.inner.read_nowait(offset, length)

    def write(self, offset: int, data: Buffer) -> None:
        """Wait, then write."""
        self._wait(self.delays.write_seconds)
        self.inner.write(offset, data)

    def flush(self) -> None:
        """Wait, then flush."""
        self._wait(self.delays.flush_seconds)
        self.inner.flush()

    def discard(self, offset: int, length: int) -> None:
        """Wait, then discard."""
        self._wait(self.delays.discard_seconds)
        self.inner.discard(offset, length)
