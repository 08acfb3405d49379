"""The block cache: decoded metadata blocks by address.

**Invariants**
- A cached object is never changed in place; a change publishes a new object.
- An entry with `holds` > 0 (dirty in the running or committing transaction, not yet written home, or pinned by an
  operation that waits) is never evicted. `evictable` has exactly the others: the shrinker looks at no held one, however
  many are dirty.
- `bytes` is the sum of the entries' costs, `held_bytes` of those with `holds` > 0.
"""

from __future__ import annotations

from collections import OrderedDict

from deferfs.limits import SHRINK_LOOKS_MAX
from deferfs.ondisk.format import Block, Format


class Entry:
    """One cached block. `holds`: pin count; `hot`: the referenced bit of the second-chance algorithm."""

    __slots__ = ("cost", "holds", "hot", "obj")

    def __init__(self, obj: Block, cost: int) -> None:
        self.obj = obj
        self.cost = cost
        self.holds = 0
        self.hot = True


class BlockCache:
    """Second-chance cache of metadata blocks. It does no IO: blocks are supplied and published."""

    def __init__(self, fmt: Format) -> None:
        self.fmt = fmt
        self.entries: dict[int, Entry] = {}
        self.evictable: OrderedDict[int, Entry] = OrderedDict()
        """Those that are not held, in the order in which the shrinker looks at them."""
        self.bytes = 0
        self.held_bytes = 0
        self.evicted_total = 0

    def supply(self, address: int, kind: type[Block], data: bytes) -> None:
        """Decode a block read from the device, unless it is cached. CorruptionError when it is damaged."""
        if address not in self.entries:
            self.publish(address, kind.decode(self.fmt, address, data))

    def supply_all(self, first: int, data: bytes, kinds: dict[int, type[Block]]) -> list[int]:
        """Supply those of the consecutive blocks from `first` on, whose bytes are `data`, that have a kind in `kinds`;
        returns their addresses. CorruptionError when one is damaged."""
        size = self.fmt.block_size
        found = []
        for at in range(0, len(data), size):
            address = first + at // size
            kind = kinds.get(address)
            if kind is not None:
                self.supply(address, kind, data[at : at + size])
                found.append(address)
        return found

    def publish(self, address: int, obj: Block) -> Entry:
        """Make `obj` the current content of the block."""
        cost = obj.cost(self.fmt)
        entry = self.entries.get(address)
        if entry is None:
            entry = self.entries[address] = self.evictable[address] = Entry(obj, cost)
            self.bytes += cost
        else:
            self.bytes += cost - entry.cost
            if entry.holds:
                self.held_bytes += cost - entry.cost
            entry.obj, entry.cost, entry.hot = obj, cost, True
        return entry

    def hold(self, address: int) -> None:
        entry = self.entries[address]
        if not entry.holds:
            self.held_bytes += entry.cost
            del self.evictable[address]
        entry.holds += 1

    def let_go(self, address: int) -> None:
        """Undo one `hold`; blocks dropped meanwhile are ignored. One that is not held any more is behind all others, or
        before them if it was cooled and not used since."""
        entry = self.entries.get(address)
        if entry is not None and entry.holds:
            entry.holds -= 1
            if not entry.holds:
                self.held_bytes -= entry.cost
                self.evictable[address] = entry
                if not entry.hot:
                    self.evictable.move_to_end(address, last=False)
                entry.hot = False

    def cool(self, address: int) -> None:
        """A held block was changed without being used: it is evicted first once it is not held any more, unless it is
        used before."""
        entry = self.entries.get(address)
        if entry is not None:
            entry.hot = False

    def drop(self, address: int) -> None:
        """Remove a freed block."""
        entry = self.entries.pop(address, None)
        if entry is not None:
            self.bytes -= entry.cost
            if entry.holds:
                self.held_bytes -= entry.cost
            else:
                del self.evictable[address]

    def shrink(self, wanted_bytes: int) -> int:
        """Evict entries that are not held, coldest first, until `wanted_bytes` are free; returns the bytes freed.

        Each entry is visited at most twice (the first visit clears `hot`), and one call makes at most SHRINK_LOOKS_MAX
        visits, so that it is short even when all were used.
        """
        freed = 0
        evictable = self.evictable
        for _ in range(min(2 * len(evictable), SHRINK_LOOKS_MAX)):
            if freed >= wanted_bytes or not evictable:
                break
            address, entry = evictable.popitem(last=False)
            if entry.hot:
                entry.hot = False
                evictable[address] = entry
                continue
            del self.entries[address]
            self.evicted_total += 1
            freed += entry.cost
        self.bytes -= freed
        return freed
