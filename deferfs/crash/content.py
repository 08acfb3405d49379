"""The content of a file as an immutable value: sparse, and cheap to change locally."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

CHUNK_BYTES: Final = 4096
"""Granularity at which versions of a file share content."""
_ZEROS: Final = bytes(CHUNK_BYTES)


class Content:
    """The bytes of a file. Missing chunks are zeros, as is everything past EOF.

    `chunks` maps the number of a chunk to its CHUNK_BYTES bytes. A change returns a new object that shares the
    unchanged chunks.
    """

    __slots__ = ("chunks",)

    def __init__(self, chunks: Mapping[int, bytes] = MappingProxyType({})) -> None:
        self.chunks = chunks

    def write(self, offset: int, data: bytes) -> Content:
        """These bytes with `data` at byte `offset`."""
        chunks = dict(self.chunks)
        at = 0
        while at < len(data):
            number, inside = divmod(offset + at, CHUNK_BYTES)
            part = data[at : at + CHUNK_BYTES - inside]
            old = chunks.get(number, _ZEROS)
            chunks[number] = old[:inside] + part + old[inside + len(part) :]
            at += len(part)
        return Content(chunks)

    def cut(self, size: int) -> Content:
        """These bytes with zeros from `size` on."""
        last, inside = divmod(size, CHUNK_BYTES)
        chunks = {number: chunk for number, chunk in self.chunks.items() if number < last}
        if inside and last in self.chunks:
            chunks[last] = self.chunks[last][:inside].ljust(CHUNK_BYTES, b"\0")
        return Content(chunks)

    def chunk(self, number: int) -> bytes:
        """CHUNK_BYTES bytes."""
        return self.chunks.get(number, _ZEROS)

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes, regardless of the size of the file."""
        first, inside = divmod(offset, CHUNK_BYTES)
        last = (offset + length + CHUNK_BYTES - 1) // CHUNK_BYTES
        return b"".join(self.chunk(number) for number in range(first, last))[inside : inside + length]

    def numbers(self) -> set[int]:
        """The chunks that may be non-zero."""
        return set(self.chunks)


EMPTY: Final = Content()
