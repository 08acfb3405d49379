"""How much may be dirty, and what an operation that changes something waits for when more is."""

from __future__ import annotations

import pytest

from deferfs.limits import WRITE_BACK_FACTOR
from deferfs.store.needs import NeedWriteBack
from deferfs.volume import attributes, files, namespace
from deferfs.volume.driver import Driver
from deferfs.volume.new_inode import NewInode
from deferfs.volume.waits import LessDirty, Task
from tests.unit.volumes import FILE, ROOT, fresh_driver, make

BLOCK_BYTES = 1024


def too_dirty() -> tuple[Driver, int]:
    """A volume of which much more is dirty than its budget allows; the inode number of a file that was just made."""
    driver = fresh_driver()
    ino = 0
    for number in range(200):
        ino = make(driver, b"%d" % number)
    store = driver.volume.store
    store.memory.set_limit(store.dirty_bytes)
    assert store.memory.too_dirty
    return driver, ino


def first_wait(task: Task[None]) -> LessDirty:
    wait = next(task)
    assert isinstance(wait, LessDirty)
    return wait


def test_an_operation_waits_in_proportion_to_what_it_makes_dirty() -> None:
    """And not until all is within the limit: that may be the dirt of a thousand others."""
    driver, _ = too_dirty()
    dirty = driver.volume.store.dirty_bytes
    for blocks in (1, 3, 10):
        wait = first_wait(driver.engine.durability.make_up_for(blocks))
        assert wait.bytes_max == dirty - WRITE_BACK_FACTOR * blocks * BLOCK_BYTES
        assert not wait.over()


def test_an_operation_waits_until_operations_may_make_more_dirty_at_most() -> None:
    driver, _ = too_dirty()
    wait = first_wait(driver.engine.durability.make_up_for(10_000))
    assert wait.bytes_max == driver.volume.store.memory.dirty_bytes_max > 0


def test_an_operation_says_how_much_it_makes_dirty() -> None:
    """All blocks of the running transaction are dirty as they are. After its commit, each change makes more so."""
    driver, ino = too_dirty()

    def needed_to_change() -> object:
        return driver.engine.attempt(attributes.setattr, (driver.volume, ino), {"mode": 0o600}, reserve=False)

    assert not isinstance(needed_to_change(), NeedWriteBack)
    driver.commit()
    assert driver.volume.store.memory.too_dirty
    needed = needed_to_change()
    assert isinstance(needed, NeedWriteBack)
    assert needed.blocks == 1
    arguments = (driver.volume, ROOT, b"new", NewInode(FILE))
    needed = driver.engine.attempt(namespace.create, arguments, {}, reserve=False)
    assert isinstance(needed, NeedWriteBack)
    assert needed.blocks > 1


def test_an_operation_that_changes_nothing_never_waits_for_write_back() -> None:
    driver, ino = too_dirty()
    driver.commit()
    found = driver.engine.attempt(attributes.getattr, (driver.volume, ino), {}, reserve=False)
    assert not isinstance(found, NeedWriteBack)


def test_no_data_is_written_before_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Written twice, it would cost twice; and the blocks of the first attempt belong to another file by then."""
    driver, ino = too_dirty()
    driver.commit()
    written: list[int] = []
    monkeypatch.setattr(driver.device, "write", lambda offset, _data: written.append(offset))
    arguments = (driver.volume, ino, 0, bytes(8 * BLOCK_BYTES))
    assert isinstance(driver.engine.attempt(files.write, arguments, {}, reserve=False), NeedWriteBack)
    assert written == []
