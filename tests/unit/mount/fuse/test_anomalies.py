"""Requests that a kernel in its right mind does not send, as pyfuse3 would hand them to the adapter."""

from __future__ import annotations

import errno
import logging
from collections import Counter

import pytest

from deferfs.mount.fuse.anomalies import Anomalies
from tests.unit.mount.fuse.requests import context
from tests.unit.mount.kernels import ROOT, Kernel, fails


def counted(kernel: Kernel) -> dict[str, int]:
    return kernel.runtime.volume.inodes.statistics().anomalies


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    return [record.message for record in caplog.records if "malformed traffic" in record.message]


async def test_forget_of_an_unknown_inode(kernel: Kernel, caplog: pytest.LogCaptureFixture) -> None:
    for ino in (0, 3, 4711, (1 << 64) - 1):
        await kernel.adapter.forget([(ino, 1)])
    assert counted(kernel) == {"forget_unknown": 4}
    assert len(told(caplog)) == 1


async def test_more_forgets_than_lookups(kernel: Kernel, caplog: pytest.LogCaptureFixture) -> None:
    ino, fh = await kernel.create(b"file")
    await kernel.adapter.forget([(ino, 5), (ino, 1), (ino, 7)])
    assert counted(kernel) == {"forget_excess": 3}
    assert len(told(caplog)) == 1
    await kernel.adapter.write(fh, 0, b"the handle keeps the inode")
    await kernel.adapter.release(fh)
    entry = await kernel.adapter.lookup(ROOT, b"file", context())
    assert (entry.st_ino, entry.st_size) == (ino, 26)
    assert kernel.lookups(ino) == 1


async def test_more_forgets_than_lookups_of_a_deleted_file(kernel: Kernel) -> None:
    ino, fh = await kernel.create(b"file")
    await kernel.adapter.release(fh)
    await kernel.adapter.unlink(ROOT, b"file", context())
    await kernel.adapter.forget([(ino, 2), (ino, 1)])
    await kernel.runtime.workers.flush()
    assert kernel.runtime.volume.inodes.inactivated_total == 1
    assert kernel.runtime.store.orphans.count == 0
    assert ino not in kernel.runtime.volume.inodes.table
    await kernel.adapter.forget([(ino, 1)])
    assert sum(counted(kernel).values()) == 3


async def test_release_twice(kernel: Kernel, caplog: pytest.LogCaptureFixture) -> None:
    ino, fh = await kernel.create(b"file")
    for _ in range(4):
        await kernel.adapter.release(fh)
    await kernel.adapter.release(999)
    assert counted(kernel) == {"release_unknown": 4}
    assert len(told(caplog)) == 1
    assert kernel.runtime.volume.inodes.table[ino].active_tokens == 0


async def test_requests_with_an_unknown_handle(kernel: Kernel, caplog: pytest.LogCaptureFixture) -> None:
    _, fh = await kernel.create(b"file")
    await kernel.adapter.release(fh)
    for unknown in (fh, 999):
        for request in (
            kernel.adapter.read(unknown, 0, 10),
            kernel.adapter.write(unknown, 0, b"x"),
            kernel.adapter.fsync(unknown, False),
        ):
            with fails(errno.EBADF):
                await request
    assert counted(kernel) == {"unknown_handle": 6}
    assert len(told(caplog)) == 1
    assert kernel.adapter.writes_in_flight == 0


async def test_setattr_after_unlink_while_the_file_is_held(kernel: Kernel) -> None:
    ino, fh = await kernel.create(b"file")
    await kernel.adapter.write(fh, 0, bytes(10_000))
    await kernel.adapter.unlink(ROOT, b"file", context())
    entry = await kernel.setattr(ino, mode=0o600, size=5000)
    assert (entry.st_mode & 0o7777, entry.st_size, entry.st_nlink) == (0o600, 5000, 0)
    assert counted(kernel) == {}


async def test_setattr_after_the_inode_has_gone(kernel: Kernel, caplog: pytest.LogCaptureFixture) -> None:
    ino, fh = await kernel.create(b"file")
    await kernel.adapter.release(fh)
    await kernel.adapter.unlink(ROOT, b"file", context())
    await kernel.adapter.forget([(ino, 1)])
    await kernel.runtime.workers.flush()
    for values in ({"mode": 0o600}, {"size": 0}, {"size": 10}, {}):
        with fails(errno.ESTALE):
            await kernel.setattr(ino, **values)
    assert counted(kernel) == {"stale_inode": 4}
    assert len(told(caplog)) == 1


async def test_setattr_while_the_inode_is_on_its_way_out(kernel: Kernel) -> None:
    """The inode has no reference left: the change is lost with it, and it is still cleaned up exactly once."""
    ino, fh = await kernel.create(b"file")
    await kernel.adapter.write(fh, 0, bytes(50_000))
    await kernel.adapter.release(fh)
    await kernel.adapter.unlink(ROOT, b"file", context())
    await kernel.runtime.workers.stop()  # it waits in the queue, under either policy
    await kernel.adapter.forget([(ino, 1)])
    assert (await kernel.setattr(ino, size=100, mode=0o600)).st_nlink == 0
    kernel.runtime.workers.resume()
    await kernel.runtime.workers.flush()
    assert kernel.runtime.volume.inodes.inactivated_total == 1
    assert kernel.runtime.store.orphans.count == 0
    with fails(errno.ESTALE):
        await kernel.adapter.getattr(ino, context())


def test_each_kind_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    counts: Counter[str] = Counter()
    anomalies = Anomalies(counts)
    anomalies.tell()
    for _ in range(3):
        anomalies.note("release_unknown")
        counts["forget_unknown"] += 1
        anomalies.tell()
    assert counts == {"release_unknown": 3, "forget_unknown": 3}
    assert len(told(caplog)) == 2
