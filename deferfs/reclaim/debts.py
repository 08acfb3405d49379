"""Access times owed by linked inodes that have left core.

An idle inode that owes only its lazy access time is evicted at once; number, generation and time go into this table.
They are written later, those of one block of the inode table together.

**Invariants**
- An inode is in core or in here, never both: bringing it into core takes its debt over.
- The table never grows: an open-addressing hash table of packed integers, mapped once, at most COUNT_SHARE of it full.
  Adding allocates nothing and never waits; a full table refuses, and the inode stays in core. An empty table takes no
  memory: its pages go back to the kernel.
- The inodes of one table block hash to adjacent slots (linear probing). Removal closes the gap: no tombstones.

A slot takes 20 bytes, and at most three quarters of the slots are used: 27 bytes a debt when the table is full.
"""

from __future__ import annotations

from mmap import MADV_DONTNEED, MAP_ANONYMOUS, MAP_PRIVATE, mmap

SLOT_BYTES = 8 + 4 + 8
"""Bytes of a slot: inode number (0: free), generation, time."""
COUNT_SHARE = 0.75
"""Load factor at which the table is full: linear probing gets slow beyond."""
_NEIGHBOURS = 8
"""Inodes that hash to adjacent slots: those of one table block of 4 KiB."""
_MIX = 663608941
"""Fibonacci hashing: 2^30 divided by the golden ratio. Products of 30-bit numbers fit into a machine word, and the
compiled code multiplies such numbers without allocating any."""
_MIX_BITS = 30


def slots_for(budget_bytes: int) -> int:
    """Slots of a table that takes at most `budget_bytes`: a power of two."""
    return 1 << max(6, (budget_bytes // SLOT_BYTES).bit_length() - 1)


class TimeDebts:
    """Access times owed, by inode number. `slots`, the number of slots, is a power of two."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.count = 0
        self.count_max = int(slots * COUNT_SHARE)
        self._shift = max(0, _MIX_BITS - (slots // _NEIGHBOURS).bit_length() + 1)
        """What remains of the low _MIX_BITS of a product are its highest bits, which are mixed best."""
        self.paid_total = 0
        """Debts written, with any update of their blocks, and what inodes in core owed and was written with them."""
        self._pages = mmap(-1, SLOT_BYTES * slots, MAP_PRIVATE | MAP_ANONYMOUS)
        view = memoryview(self._pages)
        self._inos = view[: 8 * slots].cast("Q")
        self._times = view[8 * slots : 16 * slots].cast("q")
        self._generations = view[16 * slots :].cast("I")

    @property
    def resident_bytes(self) -> int:
        return self.slots * SLOT_BYTES if self.count else 0

    @property
    def full(self) -> bool:
        """Whether the next inode has to stay in core."""
        return self.count >= self.count_max

    def _home(self, ino: int) -> int:
        """The slot where probing for an inode starts."""
        block, index = divmod(ino, _NEIGHBOURS)
        mixed = (block & ((1 << _MIX_BITS) - 1)) * _MIX >> self._shift
        return (mixed * _NEIGHBOURS + index) & (self.slots - 1)

    def _find(self, ino: int) -> int:
        """The slot of the inode, or the free slot where it would go."""
        return self._probe(ino, self._home(ino))

    def _probe(self, ino: int, at: int) -> int:
        """As `_find`, from the slot where probing for the inode starts."""
        inos, mask = self._inos, self.slots - 1
        while (there := inos[at]) and there != ino:
            at = (at + 1) & mask
        return at

    def add(self, ino: int, generation: int, atime_ns: int) -> bool:
        """Add or replace the debt of an inode that leaves core. False when the table is full."""
        if self.count >= self.count_max:
            return False
        at = self._find(ino)
        if not self._inos[at]:
            self._inos[at] = ino
            self.count += 1
        self._generations[at] = generation
        self._times[at] = atime_ns
        return True

    def look(self, ino: int, generation: int) -> int:
        """The access time owed, in ns; 0 when none."""
        if not self.count:
            return 0
        at = self._find(ino)
        return self._times[at] if self._inos[at] and self._generations[at] == generation else 0

    def owes(self, ino: int) -> bool:
        """Whether an inode of this number owes anything."""
        return bool(self.count and self._inos[self._find(ino)])

    def take(self, ino: int, generation: int) -> int:
        """As `look`, but remove the debt, which the caller takes over. A debt of another generation is dropped."""
        if not self.count:
            return 0
        at = self._find(ino)
        if not self._inos[at]:
            return 0
        time = self._times[at] if self._generations[at] == generation else 0
        self._remove([at])
        return time

    def void(self, ino: int) -> None:
        """Drop the debt: the inode has been given another access time."""
        self.take(ino, 0)

    def _remove(self, slots: list[int]) -> None:
        """Free slots, and move what was probed past them back towards its home: one walk for all of a cluster."""
        inos, mask = self._inos, self.slots - 1
        going = set(slots)
        count = len(going)
        for start in slots:
            if start not in going:
                continue  # an earlier walk has passed it
            gaps: list[int] = []
            at = start
            while ino := inos[at]:
                if at in going:
                    going.remove(at)
                    gaps.append(at)
                else:
                    reach = (at - self._home(ino)) & mask
                    for number, gap in enumerate(gaps):
                        if (at - gap) & mask <= reach:
                            self._move(at, gap)
                            del gaps[number]
                            gaps.append(at)
                            break
                at = (at + 1) & mask
            for gap in gaps:
                inos[gap] = 0
        self.count -= count
        if not self.count:
            self._pages.madvise(MADV_DONTNEED)

    def _move(self, source: int, target: int) -> None:
        self._inos[target] = self._inos[source]
        self._generations[target] = self._generations[source]
        self._times[target] = self._times[source]

    def _occupied(self, first: int, count: int) -> list[int]:
        """The slots of those among the `count` inodes from `first` on that owe, in their order."""
        found: list[int] = []
        if not self.count:
            return found
        base = -1
        for ino in range(first, first + count):
            index = ino % _NEIGHBOURS
            if base < 0 or not index:
                base = self._home(ino - index)
            at = self._probe(ino, (base + index) & (self.slots - 1))
            if self._inos[at]:
                found.append(at)
        return found

    def debtors(self, first: int, count: int) -> list[int]:
        """The inodes in slots [first, first + count): one part of a scan of the table."""
        return [ino for ino in self._inos[first : first + count] if ino] if self.count else []

    def debtors_among(self, first: int, count: int) -> list[int]:
        """Those of the `count` inodes from `first` on that owe."""
        return [self._inos[at] for at in self._occupied(first, count)]

    def of_block(self, first: int, count: int) -> list[tuple[int, int, int]]:
        """(inode, generation, time in ns) of those among the `count` inodes from `first` on that owe."""
        return [(self._inos[at], self._generations[at], self._times[at]) for at in self._occupied(first, count)]

    def settle(self, paid: list[tuple[int, int, int]]) -> None:
        """Remove debts (inode, generation, time) that are written or void. A later time of such an inode stays."""
        slots = []
        for ino, _, time in paid:
            at = self._find(ino)
            if self._inos[at] and self._times[at] == time:
                slots.append(at)
        if slots:
            self._remove(slots)
            self.paid_total += len(slots)
