"""A recorded disk that also records what was in flight."""

from __future__ import annotations

from collections.abc import Callable

from deferfs.device import Buffer, Device, RecordingDevice


class NotingDevice(RecordingDevice):
    """Records `phase()`, which tells what is in flight, with each record."""

    def __init__(self, inner: Device) -> None:
        super().__init__(inner)
        self.phases: list[str] = []
        self.phase: Callable[[], str] = lambda: "mount"

    def write(self, offset: int, data: Buffer) -> None:
        super().write(offset, data)
        self.phases.append(self.phase())

    def flush(self) -> None:
        try:
            super().flush()
        finally:
            # a failed flush is in the log as well
            self.phases.append(self.phase())

    def discard(self, offset: int, length: int) -> None:
        super().discard(offset, length)
        self.phases.append(self.phase())
