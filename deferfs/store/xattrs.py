"""Extended attributes of an inode: inline in its record, or a chain of blocks that is replaced as a whole."""

from __future__ import annotations

import errno

from deferfs.errors import CorruptionError, FsError
from deferfs.limits import XATTR_BYTES_MAX
from deferfs.ondisk.inode import INLINE_BYTES, TREE_ROOT_BYTES, Inode
from deferfs.ondisk.xattr import XattrBlock, pack_xattrs, unpack_xattrs
from deferfs.store.plan import Plan


def read(plan: Plan, inode: Inode) -> dict[bytes, bytes]:
    """All attributes of the inode."""
    if inode.xattrs:
        return unpack_xattrs(inode.xattrs)
    return unpack_xattrs(b"".join(block.payload for _, block in _chain(plan, inode)))


def _chain(plan: Plan, inode: Inode) -> list[tuple[int, XattrBlock]]:
    found: list[tuple[int, XattrBlock]] = []
    address = inode.xattr_block
    limit = XATTR_BYTES_MAX // XattrBlock.payload_max(plan.store.fmt) + 1
    while address:
        if len(found) > limit:
            raise CorruptionError(f"inode {inode.ino}: endless xattr chain")
        block = plan.get(address, XattrBlock)
        if block.owner != inode.ino:
            raise CorruptionError(f"block {address}: xattrs of inode {block.owner}, not {inode.ino}")
        found.append((address, block))
        address = block.next
    return found


def write(plan: Plan, inode: Inode, attributes: dict[bytes, bytes]) -> None:
    """Replace all attributes; `inode` is the plan's own copy. FsError(ENOSPC) above the size limit."""
    packed = pack_xattrs(attributes)
    per_block = XattrBlock.payload_max(plan.store.fmt)
    pieces = -(-len(packed) // per_block)
    if len(packed) > XATTR_BYTES_MAX or pieces > plan.store.journal.transaction_blocks_max // 2:
        raise FsError(errno.ENOSPC)
    free(plan, inode)
    if len(packed) + max(inode.data_bytes(), TREE_ROOT_BYTES) <= INLINE_BYTES:
        inode.xattrs = packed
        return
    following = 0
    for index in reversed(range(pieces)):
        address, _ = plan.allocate(0, 1)
        plan.create(address, XattrBlock(inode.ino, packed[index * per_block : (index + 1) * per_block], following))
        following = address
    inode.xattr_block = following
    inode.blocks += pieces


def free(plan: Plan, inode: Inode) -> None:
    """Remove all attributes."""
    for address, _ in _chain(plan, inode):
        plan.free_metadata(address)
        inode.blocks -= 1
    inode.xattr_block = 0
    inode.xattrs = b""
