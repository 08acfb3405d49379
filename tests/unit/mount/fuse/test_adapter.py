"""The protocol adapter on a volume in memory: what the kernel is answered, and what is counted for it."""

import errno
import os
import stat
from typing import cast

import pyfuse3
import pytest
import trio

from deferfs.errors import CorruptionError, FsError
from deferfs.mount.fuse.adapter import Adapter
from deferfs.mount.host.options import MountOptions, parse_options
from deferfs.ondisk.directory import pack_entry
from deferfs.store.plan import Plan
from deferfs.volume import attributes
from tests.unit.mount.fuse.requests import context
from tests.unit.mount.kernels import ROOT, Kernel, fails, make_runtime


async def test_a_missing_name_is_an_answer_that_the_kernel_may_keep(kernel: Kernel) -> None:
    entry = await kernel.adapter.lookup(ROOT, b"none", context())
    assert entry.st_ino == 0
    assert entry.entry_timeout == MountOptions().entry_timeout


async def test_every_way_to_learn_of_an_inode_counts_a_lookup(kernel: Kernel) -> None:
    ino, _ = await kernel.create(b"file")
    assert kernel.lookups(ino) == 1
    await kernel.adapter.lookup(ROOT, b"file", context())
    assert kernel.lookups(ino) == 2
    await kernel.adapter.link(ino, ROOT, b"link", context())
    assert kernel.lookups(ino) == 3
    await kernel.adapter.lookup(ino, b".", context())
    assert kernel.lookups(ino) == 4
    for made in (
        await kernel.adapter.mkdir(ROOT, b"directory", 0o755, context()),
        await kernel.adapter.symlink(ROOT, b"symlink", b"target", context()),
        await kernel.adapter.mknod(ROOT, b"fifo", stat.S_IFIFO | 0o600, 0, context()),
    ):
        assert kernel.lookups(made.st_ino) == 1


async def test_the_kernel_is_told_the_generation(kernel: Kernel) -> None:
    """By which it tells an inode from the one that had its number before."""
    made = await kernel.adapter.mkdir(ROOT, b"directory", 0o755, context())
    record = await kernel.runtime.run(attributes.getattr, kernel.runtime.volume, made.st_ino)
    assert made.generation == record.generation != 0


async def test_readdir_counts_only_what_fitted_the_buffer(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    inodes = {}
    for number in range(100):
        name = b"%d" % number
        ino, fh = await kernel.create(name)
        await kernel.adapter.release(fh)
        inodes[name] = ino
    seen: list[bytes] = []
    room = cookie = 0

    def reply(_token: object, name: bytes, attr: pyfuse3.EntryAttributes, next_id: int) -> bool:
        nonlocal room, cookie
        if not room:
            return False
        room -= 1
        assert 0 < next_id < 1 << 63
        if name in (b".", b".."):
            assert attr.st_ino == ROOT
        else:
            assert attr.st_ino == inodes[name]
            seen.append(name)
        cookie = next_id
        return True

    monkeypatch.setattr(pyfuse3, "readdir_reply", reply)
    dots_before = kernel.lookups(ROOT)
    for fitting in (10, 70, 70):
        room = fitting
        await kernel.adapter.readdir(ROOT, cookie, cast("pyfuse3.ReaddirToken", None))
    assert sorted(seen) == sorted(inodes)
    assert all(kernel.lookups(ino) == 2 for ino in inodes.values())
    assert kernel.lookups(ROOT) == dots_before, "the kernel counts none for dots"


async def test_forget_is_over_at_once_when_eviction_is_deferred() -> None:
    runtime = make_runtime("deferred")
    async with trio.open_nursery() as nursery:
        await runtime.start(nursery)
        kernel = Kernel(runtime, MountOptions())
        ino, fh = await kernel.create(b"file")
        await kernel.adapter.write(fh, 0, bytes(100_000))
        await kernel.adapter.release(fh)
        await kernel.adapter.unlink(ROOT, b"file", context())
        with pytest.raises(StopIteration):
            kernel.adapter.forget([(ino, 1)]).send(None)
        assert runtime.volume.gc.backlog == 1
        await runtime.close()
        nursery.cancel_scope.cancel()
    assert runtime.checker.violations_total == 0


async def test_a_deleted_file_lives_until_it_is_forgotten(kernel: Kernel) -> None:
    ino, fh = await kernel.create(b"file")
    await kernel.adapter.write(fh, 0, b"hello")
    await kernel.adapter.unlink(ROOT, b"file", context())
    assert await kernel.adapter.read(fh, 0, 100) == b"hello"
    assert (await kernel.adapter.getattr(ino, context())).st_nlink == 0
    await kernel.adapter.release(fh)
    await kernel.adapter.forget([(ino, 1)])
    await kernel.runtime.workers.flush()
    with fails(errno.ESTALE):
        await kernel.adapter.getattr(ino, context())


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (FsError(errno.ENOSPC), errno.ENOSPC),
        (CorruptionError("block 7"), errno.EUCLEAN),
        (OSError(errno.EROFS, "read-only"), errno.EROFS),
        (RuntimeError("a bug"), errno.EIO),
        (AssertionError(), errno.EIO),
    ],
)
async def test_no_other_exception_leaves_a_handler(
    error: Exception, number: int, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(kernel.runtime, "run", fail)
    monkeypatch.setattr(kernel.runtime, "forget", fail)
    with fails(number):
        await kernel.adapter.getattr(ROOT, context())
    await kernel.adapter.forget([(5, 1)])


async def test_flush_is_refused_so_that_it_is_not_sent_again(kernel: Kernel) -> None:
    with fails(errno.ENOSYS):
        await kernel.adapter.flush(1)


async def test_open_truncates(kernel: Kernel) -> None:
    ino, fh = await kernel.create(b"file")
    await kernel.adapter.write(fh, 0, b"hello")
    await kernel.adapter.open(ino, os.O_WRONLY | os.O_TRUNC, context())
    assert (await kernel.adapter.getattr(ino, context())).st_size == 0


async def test_setattr_changes_only_what_is_named(kernel: Kernel) -> None:
    ino, _ = await kernel.create(b"file")
    entry = await kernel.setattr(ino, mtime_ns=-5, atime_ns=10**18)
    assert (entry.st_mtime_ns, entry.st_atime_ns) == (-5, 10**18)
    assert stat.S_IMODE(entry.st_mode) == 0o644
    entry = await kernel.setattr(ino, size=12345)
    assert entry.st_size == 12345


async def test_the_clock_of_stamps_is_told_of_times_before_they_are_set(kernel: Kernel) -> None:
    """Some of them pyfuse3 has read from a clock that is ahead of it."""
    told: list[int] = []
    kernel.adapter = Adapter(kernel.runtime, parse_options([]), stamped=told.append)
    ino, fh = await kernel.create(b"file")
    await kernel.setattr(ino, mtime_ns=7, atime_ns=5)
    await kernel.setattr(ino, mode=0o600)
    assert told == [5, 7]
    await kernel.adapter.release(fh)


async def test_opening_for_reading_changes_the_access_time(kernel: Kernel) -> None:
    """The kernel may have all of it in its cache; then no READ will come."""
    told: list[int] = []
    kernel.adapter.invalidate_attributes = told.append
    ino, fh = await kernel.create(b"file")
    await kernel.adapter.write(fh, 0, b"content")
    before = (await kernel.adapter.getattr(ino, context())).st_atime_ns
    for flags in (os.O_WRONLY, os.O_RDONLY | os.O_NOATIME):
        info = await kernel.adapter.open(ino, flags, context())
        assert await kernel.adapter.read(info.fh, 0, 10) == b"content"
    assert (await kernel.adapter.getattr(ino, context())).st_atime_ns == before
    assert told == []
    await kernel.adapter.open(ino, os.O_RDONLY, context())
    assert (await kernel.adapter.getattr(ino, context())).st_atime_ns > before
    assert told == [ino]


async def test_a_deleted_inode_is_not_found_by_its_handle(kernel: Kernel) -> None:
    ino, _ = await kernel.create(b"file")
    await kernel.adapter.unlink(ROOT, b"file", context())
    with fails(errno.ESTALE):
        await kernel.adapter.lookup(ino, b".", context())


async def test_only_devices_have_numbers(kernel: Kernel) -> None:
    for kind, number in ((stat.S_IFCHR, 259), (stat.S_IFBLK, 259), (stat.S_IFIFO, 0), (stat.S_IFREG, 0)):
        made = await kernel.adapter.mknod(ROOT, b"%d" % kind, kind | 0o600, 259, context())
        assert made.st_rdev == number


async def test_requests_are_timed_by_name(kernel: Kernel) -> None:
    await kernel.create(b"file")
    assert kernel.runtime.requests.snapshot()["create"].count == 1


async def test_an_impossible_key_is_refused_behind_all_others(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's cookies are signed. Numbers of a record that its types do not hold are cut down."""
    ino, _ = await kernel.create(b"extreme")
    await kernel.create(b"whole")

    def spoil(plan: Plan) -> None:
        record = plan.store.inodes.modify(plan, ino)
        record.rdev = (1 << 64) - 1
        record.nlink = record.generation = record.uid = (1 << 32) - 1
        record.atime = record.mtime = record.ctime = -(1 << 63)
        root = plan.store.inodes.modify(plan, ROOT)
        root.set_entries(root.form, (*root.entries, (1 << 63, pack_entry(ino, 8, b"impossible key"))))

    await kernel.runtime.run(spoil)
    listed: dict[bytes, pyfuse3.EntryAttributes] = {}
    last = 0

    def reply(_: object, name: bytes, attributes: pyfuse3.EntryAttributes, key: int) -> bool:
        nonlocal last
        listed[name], last = attributes, key
        return True

    monkeypatch.setattr(pyfuse3, "readdir_reply", reply)
    token = cast("pyfuse3.ReaddirToken", None)
    await kernel.adapter.readdir(ROOT, 0, token)  # an error would be the whole reply, and the lookups would be lost
    with fails(errno.EUCLEAN):
        await kernel.adapter.readdir(ROOT, last, token)
    assert listed.keys() == {b".", b"..", b"extreme", b"whole"}
    assert last < 1 << 63
    assert listed[b"extreme"].st_rdev == (1 << 32) - 1
