"""Extended attributes under repair: what can be read is kept, in the place and the blocks it has."""

from __future__ import annotations

import struct
from typing import Final

from deferfs.check.repair.context import RepairContext
from deferfs.errors import CorruptionError
from deferfs.limits import XATTR_BYTES_MAX, XATTR_VALUE_BYTES_MAX
from deferfs.ondisk.inode import INLINE_BYTES, TREE_ROOT_BYTES, Inode
from deferfs.ondisk.xattr import XattrBlock, pack_xattrs

_ITEM: Final = struct.Struct("<BI")


def mend_xattrs(repair: RepairContext, inode: Inode) -> None:
    """Make the attributes readable and claim their blocks. What follows the first damage is lost."""
    if not inode.xattrs and not inode.xattr_block:
        return
    chain, payload, whole, named = _read_chain(repair, inode)
    for address in named:
        repair.name(address)
    values = _readable(inode.xattrs)
    if inode.xattr_block:
        values |= _readable(payload)
    _shrink(values, XATTR_BYTES_MAX)
    packed = pack_xattrs(values)
    if inode.xattr_block:
        in_place = whole and not inode.xattrs and packed == payload and packed
        if not in_place:
            repair.note(f"inode {inode.ino}: extended attributes: {len(values)} kept")
            chain = _store(repair, inode, values, chain)
    elif packed != inode.xattrs:
        repair.note(f"inode {inode.ino}: extended attributes: {len(values)} kept")
        chain = _store(repair, inode, values, [])
    for address in chain:
        repair.claim(address, 1, structure=True)


def chain_blocks(repair: RepairContext, inode: Inode) -> list[int]:
    """The blocks of a chain that has been mended."""
    return _read_chain(repair, inode)[0]


def _read_chain(repair: RepairContext, inode: Inode) -> tuple[list[int], bytes, bool, list[int]]:
    """(blocks, payload, whole, named) as far as the chain can be followed; `named` are all blocks that it leads to."""
    fmt = repair.fmt
    limit = -(-2 * XATTR_BYTES_MAX // XattrBlock.payload_max(fmt))
    blocks: list[int] = []
    named: list[int] = []
    seen: set[int] = set()
    parts: list[bytes] = []
    address = inode.xattr_block
    while address:
        named.append(address)
        data = repair.read(address) if repair.inside(address, 1) else None
        if data is None or address in seen or len(blocks) >= limit:
            return blocks, b"".join(parts), False, named
        try:
            link = repair.decode(XattrBlock, address, data, f"inode {inode.ino}: extended attributes")
        except CorruptionError:
            return blocks, b"".join(parts), False, named
        if link.owner != inode.ino:
            return blocks, b"".join(parts), False, named
        seen.add(address)
        blocks.append(address)
        parts.append(link.payload)
        address = link.next
    return blocks, b"".join(parts), True, named


def _readable(data: bytes) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    at = 0
    while at + _ITEM.size <= len(data):
        name_length, value_length = _ITEM.unpack_from(data, at)
        at += _ITEM.size
        end = at + name_length + value_length
        if end > len(data) or not name_length:
            break
        name = data[at : at + name_length]
        if value_length <= XATTR_VALUE_BYTES_MAX and b"\0" not in name:
            found.setdefault(name, data[at + name_length : end])
        at = end
    return found


def _shrink(values: dict[bytes, bytes], limit: int) -> None:
    """Drop the last attributes until the string of all has at most `limit` bytes."""
    total = len(pack_xattrs(values))
    while total > limit:
        name, value = values.popitem()
        total -= _ITEM.size + len(name) + len(value)


def _store(repair: RepairContext, inode: Inode, values: dict[bytes, bytes], chain: list[int]) -> list[int]:
    """Store the values inline or in blocks of the old chain, as many as fit; the blocks taken."""
    fmt, payload = repair.fmt, XattrBlock.payload_max(repair.fmt)
    inline = INLINE_BYTES - max(inode.data_bytes(), TREE_ROOT_BYTES)
    _shrink(values, max(inline, len(chain) * payload))
    packed = pack_xattrs(values)
    if len(packed) <= inline:
        inode.xattrs, inode.xattr_block = packed, 0
        return []
    parts = [packed[at : at + payload] for at in range(0, len(packed), payload)]
    taken = chain[: len(parts)]
    for number, part in enumerate(parts):
        following = taken[number + 1] if number + 1 < len(taken) else 0
        block = XattrBlock(inode.ino, part, following)
        repair.write(taken[number], block.encode(fmt, taken[number]))
    inode.xattrs, inode.xattr_block = b"", taken[0]
    return taken
