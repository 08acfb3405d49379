from __future__ import annotations

import errno

import pytest

from deferfs.errors import CorruptionError
from deferfs.limits import XATTR_BYTES_MAX
from deferfs.ondisk.directory import pack_entry
from deferfs.ondisk.inode import FORM_ENTRIES, FORM_EXTENTS, INLINE_BYTES, Inode
from deferfs.ondisk.node import EXTENT
from deferfs.ondisk.xattr import XattrBlock
from deferfs.store import xattrs
from deferfs.store.fork import directory_fork, extent_fork
from deferfs.store.plan import Plan
from tests.unit.volumes import fails_with, fresh_store

ITEM = 5 + len(b"user.a")
"""Packed bytes of an attribute with an empty value."""


def staged(**image: int) -> tuple[Plan, Inode]:
    inode = Inode(77, 0o100644)
    return Plan(fresh_store(**image), reserve=True), inode


@pytest.mark.parametrize(
    ("value_bytes", "blocks"), [(0, 0), (300, 0), (600, 1), (984 - ITEM, 1), (985 - ITEM, 2), (4000, 5)]
)
def test_attributes_are_inline_or_in_a_chain(value_bytes: int, blocks: int) -> None:
    plan, inode = staged()
    attributes = {b"user.a": bytes(value_bytes)}
    xattrs.write(plan, inode, attributes)
    assert xattrs.read(plan, inode) == attributes
    assert inode.blocks == blocks == sum(length for _, length in plan.held)
    assert bool(inode.xattrs) == (blocks == 0)
    assert bool(inode.xattr_block) == (blocks > 0)


def test_the_chain_is_replaced_as_a_whole() -> None:
    plan, inode = staged()
    xattrs.write(plan, inode, {b"user.a": bytes(3000)})
    old = {first for first, _ in plan.held}
    xattrs.write(plan, inode, {b"user.a": bytes(2000)})
    assert set(plan.revoked) == old
    assert inode.blocks == 3
    xattrs.write(plan, inode, {b"user.a": b"small"})
    assert (inode.blocks, inode.xattr_block) == (0, 0)
    assert len(plan.revoked) == sum(length for _, length in plan.held)
    xattrs.write(plan, inode, {})
    assert xattrs.read(plan, inode) == {}


def test_inline_data_pushes_attributes_into_a_block() -> None:
    plan, inode = staged()
    inode.set_inline(bytes(INLINE_BYTES - 50))
    xattrs.write(plan, inode, {b"user.a": bytes(50 - ITEM)})
    assert inode.blocks == 0
    xattrs.write(plan, inode, {b"user.a": bytes(51 - ITEM)})
    assert inode.blocks == 1
    assert xattrs.read(plan, inode) == {b"user.a": bytes(51 - ITEM)}


@pytest.mark.parametrize("packed", range(INLINE_BYTES - 9, INLINE_BYTES + 1))
def test_inline_xattrs_leave_room_for_the_root_of_a_tree(packed: int) -> None:
    for form, fork_of in ((FORM_EXTENTS, extent_fork), (FORM_ENTRIES, directory_fork)):
        plan, inode = staged()
        xattrs.write(plan, inode, {b"user.a": bytes(packed - ITEM)})
        inode.set_entries(form, ())
        fork = fork_of(plan, inode)
        fork.insert(1, EXTENT.pack(5, 1, 0) if form == FORM_EXTENTS else pack_entry(8, 8, b"name"))
        inode.encode(plan.store.fmt, 5)


@pytest.mark.parametrize(("journal_blocks", "value_bytes"), [(256, 50_000), (2000, XATTR_BYTES_MAX)])
def test_more_than_an_operation_can_carry_is_refused(journal_blocks: int, value_bytes: int) -> None:
    plan, inode = staged(journal_blocks=journal_blocks)
    with fails_with(errno.ENOSPC):
        xattrs.write(plan, inode, {b"user.a": bytes(value_bytes)})
    assert not plan.held


def test_a_damaged_chain_is_refused() -> None:
    plan, inode = staged()
    xattrs.write(plan, inode, {b"user.a": bytes(1500)})
    first = inode.xattr_block
    block = plan.modify(first, XattrBlock)
    following, block.next = block.next, first
    with pytest.raises(CorruptionError, match="endless"):
        xattrs.read(plan, inode)
    block.next = following
    plan.modify(following, XattrBlock).owner = 78
    with pytest.raises(CorruptionError, match="of inode 78"):
        xattrs.read(plan, inode)


def test_free_gives_all_blocks_back() -> None:
    plan, inode = staged()
    xattrs.write(plan, inode, {b"user.a": bytes(3000), b"user.b": b""})
    xattrs.free(plan, inode)
    assert (inode.blocks, inode.xattr_block, inode.xattrs) == (0, 0, b"")
    assert sum(n for _, n in plan.freed) == 4
