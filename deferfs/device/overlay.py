"""A device whose writes stay in memory: for a repair before it is written out, and for past states."""

from __future__ import annotations

import errno
from collections.abc import Callable

from deferfs.device.base import Buffer, Device, check_range
from deferfs.device.wrap import WrappingDevice
from deferfs.errors import DeviceError


class OverlayDevice(WrappingDevice):
    """Reads `inner`, writes only to memory. `pages` holds the changed pages: number -> content of `page_bytes` bytes.

    **Invariant:** `inner` is never written. Memory grows only with the pages written; a write that would exceed
    `bytes_max`, unless that is 0, fails with ENOSPC.
    """

    def __init__(self, inner: Device, page_bytes: int, bytes_max: int = 0) -> None:
        super().__init__(inner)
        self.page_bytes = page_bytes
        self.bytes_max = bytes_max
        self.pages: dict[int, bytes] = {}

    @property
    def writable(self) -> bool:
        """Always True: the device below, which may be read-only, is never written."""
        return True

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`. Written pages can be read even if `inner` fails there."""
        found = self._assemble(offset, length, self.inner.read)
        assert found is not None
        return found

    def read_nowait(self, offset: int, length: int) -> bytes | None:
        """As `read`, or None when `inner` would block."""
        return self._assemble(offset, length, self.inner.read_nowait)

    def _assemble(self, offset: int, length: int, read: Callable[[int, int], bytes | None]) -> bytes | None:
        size, pages = self.page_bytes, self.pages
        numbers = range(offset // size, -(-(offset + length) // size))
        if not pages or not any(number in pages for number in numbers):
            return read(offset, length)
        check_range(self, offset, length)
        parts: list[bytes] = []
        for number in numbers:
            start, end = max(offset, number * size), min(offset + length, (number + 1) * size)
            page = pages.get(number)
            part = read(start, end - start) if page is None else page[start - number * size : end - number * size]
            if part is None:
                return None
            parts.append(part)
        return b"".join(parts)

    def write(self, offset: int, data: Buffer) -> None:
        """Store `data` in memory."""
        check_range(self, offset, len(data))
        view, size = memoryview(data), self.page_bytes
        at = offset
        while at < offset + len(data):
            number, inside = divmod(at, size)
            count = min(size - inside, offset + len(data) - at)
            piece = bytes(view[at - offset : at - offset + count])
            if count < size:
                piece = self._patched(number, inside, piece)
            if self.bytes_max and (len(self.pages) + (number not in self.pages)) * size > self.bytes_max:
                raise DeviceError(errno.ENOSPC, f"write: more than {self.bytes_max} bytes would change", self.name)
            self.pages[number] = piece
            at += count

    def _patched(self, number: int, inside: int, piece: bytes) -> bytes:
        start = number * self.page_bytes
        page = self.pages.get(number)
        if page is None:
            try:
                page = self.inner.read(start, min(self.page_bytes, self.size - start))
            except DeviceError:
                page = bytes(self.page_bytes)
        return page[:inside] + piece + page[inside + len(piece) :]

    def flush(self) -> None:
        """No effect: nothing in memory is durable."""

    def discard(self, offset: int, length: int) -> None:
        """No effect."""
