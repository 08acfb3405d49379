"""What the steps of a repair share: which blocks it takes, and when it stops to keep everything in memory."""

from __future__ import annotations

import stat

import pytest
from bitarray import bitarray

from deferfs.check import check_image
from deferfs.check.repair import context as context_module
from deferfs.check.repair.context import NoFreeBlockError
from deferfs.check.repair.layout import free_run
from deferfs.device import MemoryDevice
from deferfs.limits import JOURNAL_BLOCKS_MIN
from deferfs.ondisk.directory import name_key
from deferfs.ondisk.inode import FLAG_KEYS31
from deferfs.ondisk.node import DirectoryNode
from deferfs.volume import namespace
from deferfs.volume.new_inode import NewInode
from tests.unit.check.builder import BLOCK_SIZE, BLOCKS
from tests.unit.check.repair.contexts import repair_of
from tests.unit.check.repair.outcome import repaired, require_clean
from tests.unit.check.repair.survey import open_copy
from tests.unit.check.sample import BIG, sample


def test_blocks_that_something_old_names_are_not_written_to() -> None:
    """Not even if they hold rubbish, or are given back meanwhile; a file that has them all the same keeps them."""
    repair = repair_of(sample())
    first = repair.fmt.reserved_blocks
    repair.claim(first, BLOCKS - first - 5)
    repair.name(BLOCKS - 4)
    repair.stock.use_last(BLOCKS - 5, bitarray("10000", endian="little"))
    repair.release(first + 5, 1)
    assert [repair.allocate(at_once=True) for _ in range(4)] == [BLOCKS - 3, BLOCKS - 2, BLOCKS - 1, BLOCKS - 5]
    with pytest.raises(NoFreeBlockError):
        repair.allocate(at_once=True)
    assert not repair.used[BLOCKS - 4]


def test_released_blocks_are_allocated_last_unless_two_structures_name_them() -> None:
    repair = repair_of(sample())
    first = repair.fmt.reserved_blocks
    repair.name(first + 5)
    repair.name(first + 6)
    repair.name(first + 6)
    repair.claim(first, BLOCKS - first - 1)
    repair.release(first + 5, 2)
    assert [repair.allocate() for _ in range(2)] == [BLOCKS - 1, first + 5]
    assert repair.fresh == {BLOCKS - 1}
    with pytest.raises(NoFreeBlockError):
        repair.allocate()


def test_a_journal_that_moves_is_never_too_small_for_an_operation() -> None:
    for longest, found in ((700, 600), (500, 300), (260, 256), (255, 0)):
        repair = repair_of(sample())
        first = repair.fmt.reserved_blocks
        repair.claim(first, BLOCKS - first)
        repair.stock.taken[4000 : 4000 + longest] = 0
        if found:
            assert free_run(repair, 600, JOURNAL_BLOCKS_MIN) == (4000, found)
            assert repair.used[4000 : 4000 + found].all()
        else:
            with pytest.raises(NoFreeBlockError):
                free_run(repair, 600, JOURNAL_BLOCKS_MIN)


def test_changes_beyond_the_memory_limit_are_written_early(monkeypatch: pytest.MonkeyPatch) -> None:
    spilled: list[int] = []
    repair = repair_of(sample(), spilled)
    monkeypatch.setattr(context_module, "CHANGED_BYTES_MAX", 3 * BLOCK_SIZE)
    for address in range(3000, 3008):
        repair.write(address, b"x" * BLOCK_SIZE)
    assert spilled == [4, 4]
    repair.write(3000, repair.read(3000) or b"")  # what does not change is not written
    assert not repair.device.pages


def test_a_rebuilt_directory_takes_names_with_keys_below_all_others() -> None:
    """The leftmost key of an inner node bounds nothing."""
    image = sample()
    top = image.block(image.inode(BIG).root, DirectoryNode)
    image.spoil(image.inode(BIG).root)
    repaired(image)
    driver = open_copy(image.device.snapshot())
    first = top.keys[0] or image.block(top.children[0], DirectoryNode).keys[0]
    names = [b"new %d" % number for number in range(5000)]
    before = [name for name in names if name_key(image.fmt, name, FLAG_KEYS31) < first]
    assert before
    for name in before[:20]:
        driver.run(namespace.create, driver.volume, BIG, name, NewInode(stat.S_IFREG | 0o644))
    for name in before[:20]:
        driver.run(namespace.lookup, driver.volume, BIG, name)
    driver.close()
    require_clean(check_image(MemoryDevice.from_bytes(driver.device.read(0, driver.device.size))))
