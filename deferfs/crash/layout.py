"""The location of the bytes of each file, so that contents can be compared without reading through the volume again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from deferfs.crash.content import CHUNK_BYTES
from deferfs.crash.history import Piece, first_foreign_byte
from deferfs.crash.model import Node, Nodes
from deferfs.device import SECTOR_BYTES
from deferfs.volume import files
from deferfs.volume.driver import Driver

Chunk = tuple[int, int]
"""(inode, number of a chunk of CHUNK_BYTES)."""
Extent = tuple[int, int, int]
"""(byte in the chunk, byte on the device, length)."""


@dataclass(slots=True)
class Layout:
    """`inline`: bytes of files without blocks; `mapped`: chunks with their extents, zeros elsewhere; `by_page`: the
    chunks that lie (in part) in a page.
    """

    sizes: dict[int, int] = field(default_factory=dict)
    inline: dict[int, bytes] = field(default_factory=dict)
    mapped: dict[Chunk, list[Extent]] = field(default_factory=dict)
    by_page: dict[int, list[Chunk]] = field(default_factory=dict)

    def chunk(self, chunk: Chunk, read: Callable[[int, int], bytes]) -> bytes:
        """The bytes of a chunk, read by `read(offset, length)`, up to the size of the file."""
        ino, number = chunk
        length = min(CHUNK_BYTES, max(0, self.sizes[ino] - number * CHUNK_BYTES))
        inline = self.inline.get(ino)
        if inline is not None:
            return inline[number * CHUNK_BYTES :][:length].ljust(length, b"\0")
        pieces = self.mapped.get(chunk, ())
        if len(pieces) == 1 and pieces[0][0] == 0 and pieces[0][2] == length:
            return read(pieces[0][1], length)
        data = bytearray(length)
        for inside, offset, size in pieces:
            data[inside : inside + size] = read(offset, size)
        return bytes(data)


def layout_of(driver: Driver, tree: Mapping[int, Node], page_bytes: int) -> Layout:
    """The layout of all files that have a name."""
    layout = Layout()
    for ino, node in tree.items():
        if node.is_file and node.nlink:
            layout.sizes[ino] = node.size
            _enter(layout, driver, ino, page_bytes)
    return layout


def _enter(layout: Layout, driver: Driver, ino: int, page_bytes: int) -> None:
    size = layout.sizes[ino]
    # inline data is returned with zeros up to the requested length
    found = driver.run(files.read, driver.volume, ino, 0, min(size, CHUNK_BYTES))
    if found.inline is not None:
        layout.inline[ino] = found.inline
        return
    at = 0
    for piece in driver.run(files.read, driver.volume, ino, 0, size).pieces:
        if piece.offset is None:
            at += piece.length
            continue
        done = 0
        while done < piece.length:
            number, inside = divmod(at + done, CHUNK_BYTES)
            part = min(CHUNK_BYTES - inside, piece.length - done)
            chunk, offset = (ino, number), piece.offset + done
            layout.mapped.setdefault(chunk, []).append((inside, offset, part))
            for page in range(offset // page_bytes, (offset + part - 1) // page_bytes + 1):
                layout.by_page.setdefault(page, []).append(chunk)
            done += part
        at += piece.length


def chunks_with_content(layout: Layout, state: Nodes) -> set[Chunk]:
    """The chunks that are non-zero, on the disk or in `state`."""
    found = set(layout.mapped)
    for ino in layout.sizes:
        node = state.get(ino)
        if node is not None:
            found |= {(ino, number) for number in node.content.numbers() if number * CHUNK_BYTES < layout.sizes[ino]}
        if layout.inline.get(ino):
            found.add((ino, 0))
    return found


def wrong_bytes(
    layout: Layout,
    chunks: Iterable[Chunk],
    read: Callable[[int, int], bytes],
    state: Nodes,
    versions: Callable[[int, int], list[Piece]],
    trashed: frozenset[int] = frozenset(),
) -> str | None:
    """The first file content that was neither in `state` nor written since; None when there is none.

    `versions(ino, number)` gives the later versions of a chunk, as `History.pieces` does. `trashed` sectors, which were
    being overwritten, are skipped.
    """
    for ino, number in chunks:
        found = layout.chunk((ino, number), read)
        expected = state[ino].content.chunk(number)
        if found == expected or found == expected[: len(found)]:
            continue
        if trashed:
            found = _without(found, expected, layout.mapped.get((ino, number), []), trashed)
        pieces = versions(ino, number)
        at = first_foreign_byte(found, pieces)
        if at >= 0:
            return (
                f"inode {ino}: byte {number * CHUNK_BYTES + at} is {found[at]}, which it never was since the state "
                f"recovered ({len(pieces)} versions)"
            )
    return None


def _without(found: bytes, expected: bytes, pieces: list[Extent], trashed: frozenset[int]) -> bytes:
    data = bytearray(found)
    for inside, offset, length in pieces:
        for sector in trashed:
            low = max(offset, sector * SECTOR_BYTES)
            high = min(offset + length, (sector + 1) * SECTOR_BYTES)
            if low < high:
                at = inside + low - offset
                data[at : at + high - low] = expected[at : at + high - low]
    return bytes(data)
