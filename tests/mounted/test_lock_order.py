"""The cycle log space - memory - log space, on a mount: inline it is broken, deferred there is none."""

from __future__ import annotations

import pytest

from deferfs.cli.bench_run import ask
from deferfs.measure.scenarios.deadlock import MKFS, MOUNT, fill_memory, make_files, write_attributes
from tests.mounted.conftest import MakeScratch
from tests.mounted.scratch import deferfs

ROUNDS_MAX = 10
"""One is usually enough; it depends on which writers wait for the log when the memory is cut."""

pytestmark = [pytest.mark.mounted, pytest.mark.machine, pytest.mark.each_policy]


def test_reclaim_with_log_space_held_is_circular_inline_and_not_deferred(make_scratch: MakeScratch, evict: str) -> None:
    scratch = make_scratch(evict=evict, size="256M", format_options=MKFS)
    mount = scratch.mount(MOUNT)
    make_files(mount)
    fill_memory(mount, ask)  # what is read now was still in the page cache
    for number in range(ROUNDS_MAX):
        fill_memory(mount, ask)
        write_attributes(mount, ask)
        broken = scratch.statistics().reclaim_context.circular_waits_broken_total
        if broken or (number and evict == "deferred"):
            break
    found = scratch.statistics().reclaim_context
    report = deferfs("ctl", mount, "lockdep=report").stdout
    if evict == "inline":
        assert found.circular_waits_broken_total > 0
        assert found.violations["direct_reclaim:log"] > 0
        assert found.lock_order_cycles == 1
        assert "possible circular waiting: log_space -> fs_reclaim -> log_space" in report
        assert report.count("  log_space is held (log reservation):") == 1
    else:
        assert found.violations_total == found.lock_order_cycles == found.circular_waits_broken_total == 0
        assert "possible circular waiting" not in report
        assert "log_space -> fs_reclaim" in report  # it did happen
    scratch.drain()
    assert scratch.statistics().inodes.quarantined == 0
    scratch.unmount_and_check()
