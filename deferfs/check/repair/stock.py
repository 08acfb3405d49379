"""Free blocks of a repair, which reads everything old first, writes to blocks that nothing old names, and frees last.

The trees of the image as found are read again and again while new ones are built. So a block that one of them names
must not come to hold something else meanwhile, even when what it holds is damaged: the old tree would lead into the new
one. And a repair that is cut off is begun again, from what is on the disk. Only where no other block is left, blocks
that have been given back are written to again.
"""

from __future__ import annotations

from bitarray import bitarray


class Stock:
    """Which blocks may be handed out.

    **Invariants:** a block in `taken` is not handed out by `find`: it was named by a structure of the image as found,
    damaged or not, or is held. `last_resort` are those among the others that are marked as used: they come last. What
    was given back is handed out only by `find_given_back`, and only if no second structure names it (`disputed`): a
    block that two name is never written to.
    """

    def __init__(self, blocks: int, first: int) -> None:
        self.first = first
        self.taken = bitarray(blocks, endian="little")
        self.taken[:first] = 1
        self.last_resort = bitarray(blocks, endian="little")
        self.disputed = bitarray(blocks, endian="little")
        self.given_back = bitarray(blocks, endian="little")
        self._cursor = first
        """No block below it is free and not a last resort; -1 when there is none at all."""

    def name(self, first: int, length: int) -> None:
        """A structure of the image as found names the blocks. Each structure says so once, before anything is handed
        out.
        """
        part = slice(first, first + length)
        self.disputed[part] |= self.taken[part]
        self.taken[part] = 1

    def take(self, first: int, length: int) -> None:
        """The blocks are held."""
        self.taken[first : first + length] = 1
        self.given_back[first : first + length] = 0

    def give_back(self, first: int, length: int) -> None:
        """The blocks are held no more."""
        part = slice(first, first + length)
        self.given_back[part] = ~self.disputed[part]

    def use_last(self, first: int, bits: bitarray) -> None:
        """Of the blocks from `first` on, hand out those in `bits` only when there are no others."""
        self.last_resort[first : first + len(bits)] |= bits

    def find(self) -> int:
        """A block that nothing old names; -1 when there is none."""
        while self._cursor >= 0:
            self._cursor = self.taken.find(0, self._cursor)
            if self._cursor < 0:
                break
            if not self.last_resort[self._cursor]:
                return self._cursor
            self._cursor = self.last_resort.find(0, self._cursor)
        return self.taken.find(0, self.first)

    def find_run(self, length: int) -> int:
        """The first of `length` blocks in a row that nothing old names; -1 when there are none."""
        run = bitarray(length)
        at = (self.taken | self.last_resort).find(run)
        return at if at >= 0 else self.taken.find(run)

    def find_given_back(self) -> int:
        """A block that only what has been given up names; -1 when there is none."""
        return self.given_back.find(1, self.first)
