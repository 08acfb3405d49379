"""What all steps of one repair share: the image as it is to become, what holds each block, and what was done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

from bitarray import bitarray

from deferfs.check.context import Progress, with_progress
from deferfs.check.inodefile import InodeFile
from deferfs.check.repair.bits import correct_block
from deferfs.check.repair.stock import Stock
from deferfs.check.table import InodeTable
from deferfs.device.base import Device
from deferfs.device.overlay import OverlayDevice
from deferfs.errors import CorruptionError, DeviceError
from deferfs.ondisk.format import INODE_BYTES, Block
from deferfs.ondisk.inode import Inode
from deferfs.ondisk.node import Node
from deferfs.ondisk.superblock import Superblock

T = TypeVar("T")
B = TypeVar("B", bound=Block)

ACTIONS_MAX: Final = 1000
"""Actions that are kept one by one; the rest is only counted."""
CHANGED_BYTES_MAX: Final = 256 << 20
"""Changed blocks that are kept in memory until everything is decided."""


class NoFreeBlockError(Exception):
    """No free block is left for what a repair has to write."""


class RepairLog:
    """What a repair did, in words: `texts` are the first ACTIONS_MAX of `total` actions. `lossy` counts those that
    discarded or guessed data; the others could not have been decided otherwise.
    """

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.total = 0
        self.lossy = 0

    def note(self, text: str, *, loses: bool = True) -> None:
        """Record one action; `loses`: it discarded or guessed data."""
        self.total += 1
        self.lossy += loses
        if len(self.texts) < ACTIONS_MAX:
            self.texts.append(text)


class RepairContext:
    """One repair of one image. Everything written stays in `device`, an overlay, until it is written out.

    **Invariants:** `used` has the bit of every block that a structure or a file of the image-to-be holds, each held
    once; `structure` those of fixed areas and metadata. `stock` hands out the blocks for what is new: none that the
    image as found names, so that everything old can be read until the end, from memory and, after an interruption, from
    the disk.
    """

    def __init__(
        self,
        device: Device,
        superblock: Superblock,
        now_ns: int,
        *,
        spill: Callable[[RepairContext], None],
        repair_log: RepairLog | None = None,
        progress: Progress | None = None,
        narrow: bool = False,
    ) -> None:
        self.disk = device
        self.device = OverlayDevice(device, superblock.block_size)
        self.spill = spill
        """Called when more than CHANGED_BYTES_MAX are in memory: writes them out early."""
        self.superblock = superblock
        self.fmt = superblock.format
        self.now_ns = now_ns
        self.progress = progress
        self.narrow = narrow
        """Whether directories with 55-bit hashes get 31-bit ones."""
        self.narrowed = 0
        """Directories that were converted."""
        self.used = bitarray(superblock.blocks, endian="little")
        self.structure = bitarray(superblock.blocks, endian="little")
        self.stock = Stock(superblock.blocks, self.fmt.reserved_blocks)
        self.fresh: set[int] = set()
        """Blocks allocated by this repair that nothing on disk names: they are written first."""
        self.note = (repair_log or RepairLog()).note
        self.file: InodeFile
        self.table: InodeTable
        self.lost_blocks: set[tuple[int, int]] = set()
        """(chunk, block of it) of the inode table where no record is to be found."""
        self.damaged_trees: dict[int, type[Node]] = {}
        """Inodes whose tree has to be rebuilt."""
        self.lost_leaves: dict[int, list[tuple[int, int]]] = {}
        """Inode -> (first key, address) of leaves that its tree does not lead to any more."""
        self.torn_leaves: dict[int, set[int]] = {}
        """Files -> leaves of their tree that have a wrong checksum: what they map is taken, after all others."""
        self.doubtful = bitarray()
        """Slots of inodes whose record has a wrong checksum, and is kept unless it conflicts with another inode."""

    # --- what is done ---
    def steps(self, name: str, items: Sequence[T]) -> Iterator[T]:
        """The items one by one, with progress reports under `name`."""
        return with_progress(self.progress, name, items)

    # --- blocks ---
    def read(self, address: int) -> bytes | None:
        """A block, or None when the device cannot read it."""
        size = self.fmt.block_size
        try:
            return self.device.read(address * size, size)
        except DeviceError:
            return None

    def write(self, address: int, data: bytes) -> None:
        """The block as it is to become."""
        if self.read(address) != data:
            self.device.write(address * self.fmt.block_size, data)
            if len(self.device.pages) * self.fmt.block_size > CHANGED_BYTES_MAX:
                self.spill(self)

    def decode(self, kind: type[B], address: int, data: bytes, what: str) -> B:
        """The metadata in the block, which is corrected if a single bit of it is wrong. CorruptionError."""
        try:
            return kind.decode(self.fmt, address, data)
        except CorruptionError:
            right = correct_block(self.fmt, address, data)
            if right is None:
                raise
        found = kind.decode(self.fmt, address, right)
        self.note(f"{what}: one bit of block {address} was wrong, and is corrected", loses=False)
        self.write(address, right)
        return found

    def inside(self, first: int, length: int) -> bool:
        """Whether the blocks exist and lie behind the reserved area."""
        return first >= self.fmt.reserved_blocks and length > 0 and first + length <= self.superblock.blocks

    def name(self, first: int, length: int = 1) -> None:
        """Note that the image as found names the blocks, rightly or not."""
        if self.inside(first, length):
            self.stock.name(first, length)

    def claim(self, first: int, length: int, *, structure: bool = False) -> None:
        """Mark free blocks as held: by a fixed area, metadata or a file."""
        self.used[first : first + length] = 1
        self.stock.take(first, length)
        if structure:
            self.structure[first : first + length] = 1

    def release(self, first: int, length: int) -> None:
        """Mark held blocks as free, once what they hold has been read."""
        self.used[first : first + length] = 0
        self.structure[first : first + length] = 0
        self.stock.give_back(first, length)

    def allocate(self, *, structure: bool = True, at_once: bool = False) -> int:
        """A free block, now held. With `at_once` it may be written to the disk before the rest. NoFreeBlockError."""
        address, old = self.stock.find(), False
        if address < 0 and not at_once:
            address, old = self.stock.find_given_back(), True
        if address < 0:
            raise NoFreeBlockError
        self.claim(address, 1, structure=structure)
        if not old:
            self.fresh.add(address)
        return address

    # --- inodes ---
    def inode(self, ino: int) -> Inode:
        """The record of an inode in use. CorruptionError when it has none."""
        address, index = self.table.locate(ino)
        data = self.read(address)
        if data is None:
            raise CorruptionError(f"block {address} cannot be read")
        return Inode.decode(self.fmt, address, data[index * INODE_BYTES : (index + 1) * INODE_BYTES])

    def put(self, inode: Inode) -> None:
        """Write a record where it belongs."""
        address, index = self.table.locate(inode.ino)
        data = self.read(address) or bytes(self.fmt.block_size)
        at = index * INODE_BYTES
        record = inode.encode(self.fmt, address)
        if data[at : at + INODE_BYTES] != record:
            self.write(address, data[:at] + record + data[at + INODE_BYTES :])
