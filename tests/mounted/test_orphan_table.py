"""Deleted files that wait in the orphan table alone: through stop, freeze, kill and the next mount."""

from __future__ import annotations

import os

import pytest

from tests.mounted.polling import wait_until
from tests.mounted.scratch import Scratch

pytestmark = [pytest.mark.mounted, pytest.mark.each_policy]

FILES = 1000


def used_inodes(scratch: Scratch) -> int:
    found = os.statvfs(scratch.mountpoint)
    return found.f_files - found.f_ffree


def test_files_deleted_while_inodegc_is_stopped_take_no_memory(scratch: Scratch) -> None:
    mount = scratch.mount("gc_in_core=10", "memory=8M")
    before = used_inodes(scratch)
    for number in range(FILES):
        (mount / f"file{number}").write_bytes(bytes(3000))
    scratch.sync()
    scratch.control("gc=stop", f"throttle_inodes={2 * FILES}")
    for number in range(FILES):
        (mount / f"file{number}").unlink()
    wait_until(lambda: scratch.statistics().gc.queued == FILES, "the kernel to forget them")
    gc = scratch.statistics().gc
    assert (gc.in_core, gc.in_table) == (10, FILES - 10)
    assert scratch.statistics().inodes.cached < 100
    assert used_inodes(scratch) == before
    scratch.control("freeze=1", "thaw=1")
    scratch.sync()
    scratch.kill()
    scratch.detach()
    scratch.mount("gc_in_core=10", "memory=8M")
    assert used_inodes(scratch) == before
    free = os.statvfs(mount).f_bfree
    scratch.drain()
    assert os.statvfs(mount).f_bfree >= free  # what was promised, and the blocks of the table itself
    statistics = scratch.statistics()
    assert (statistics.gc.queued, statistics.gc.in_table, statistics.space.orphans) == (0, 0, 0)
    assert statistics.inodes.quarantined == 0
    scratch.unmount_and_check()


def test_a_deleted_file_that_is_open_stays_until_it_is_closed(scratch: Scratch) -> None:
    mount = scratch.mount("gc_in_core=0")
    with (mount / "held").open("w+b") as file:
        file.write(b"content")
        file.flush()
        (mount / "held").unlink()
        scratch.control("gc=flush")
        file.seek(0)
        assert file.read() == b"content"
        assert scratch.statistics().space.orphans == 1
    scratch.drain()
    scratch.unmount_and_check()
