"""The protocol adapter on a volume in memory: what the kernel is answered, and what is counted for it."""

import errno
import os
import stat
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from typing import Any, cast

import pyfuse3
import pytest
import trio

from deferfs.errors import CorruptionError, FsError
from deferfs.mount.adapter import Adapter
from deferfs.mount.callers import CAP_FSETID, Caller
from deferfs.mount.options import MountOptions, parse_options
from deferfs.mount.runtime import Runtime
from deferfs.volume import acl
from tests.unit.volumes import fresh_driver

ROOT = pyfuse3.ROOT_INODE


@dataclass
class Context:
    """Who asks: a process of which nothing can be seen."""

    uid: int = 0
    gid: int = 0
    pid: int = 0
    umask: int = 0


@dataclass
class Fields:
    """What a SETATTR changes."""

    update_mode: bool = False
    update_uid: bool = False
    update_gid: bool = False
    update_size: bool = False
    update_atime: bool = False
    update_mtime: bool = False
    update_ctime: bool = False


def make_runtime(evict: str) -> Runtime:
    driver = fresh_driver(evict=evict)
    return Runtime(driver.device, driver.volume, strict=evict == "deferred")


class Kernel:
    """Sends requests as pyfuse3 does."""

    def __init__(self, runtime: Runtime, options: MountOptions) -> None:
        self.runtime = runtime
        self.adapter = Adapter(runtime, options)

    def lookups(self, ino: int) -> int:
        inode = self.runtime.volume.inodes.table.get(ino)
        return inode.lookups if inode is not None else 0

    async def create(self, name: bytes, flags: int = os.O_RDWR, uid: int = 0) -> tuple[int, int]:
        info, entry = await self.adapter.create(ROOT, name, 0o644, flags, context(uid))
        return entry.st_ino, info.fh

    async def setattr(self, ino: int, uid: int = 0, **values: int) -> pyfuse3.EntryAttributes:
        attr = pyfuse3.EntryAttributes()
        for name, value in values.items():
            setattr(attr, f"st_{name}", value)
        changed = {f"update_{name.removesuffix('_ns')}": True for name in values}
        fields = cast("pyfuse3.SetattrFields", Fields(**changed))
        return await self.adapter.setattr(ino, attr, fields, None, context(uid))


def context(uid: int = 0) -> pyfuse3.RequestContext:
    return cast("pyfuse3.RequestContext", Context(uid=uid))


@pytest.fixture(params=["deferred", "inline"])
async def kernel(request: Any) -> AsyncIterator[Kernel]:
    runtime = make_runtime(request.param)
    async with trio.open_nursery() as nursery:
        await runtime.start(nursery)
        yield Kernel(runtime, parse_options([f"evict={request.param}"]))
        await runtime.close()
        nursery.cancel_scope.cancel()


def fails(number: int) -> Any:
    return pytest.raises(pyfuse3.FUSEError, check=lambda error: error.errno == number)


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


async def test_who_may_not_vouch_for_a_program_takes_its_privileges_away(kernel: Kernel) -> None:
    ino, _ = await kernel.create(b"program")

    async def mode() -> int:
        return stat.S_IMODE((await kernel.adapter.getattr(ino, context())).st_mode)

    async def privileged() -> None:
        assert stat.S_IMODE((await kernel.setattr(ino, mode=0o6755)).st_mode) == 0o6755

    await privileged()
    await kernel.setattr(ino, uid=1000)  # a write by an ordinary user begins: nothing is set
    assert await mode() == 0o755
    await privileged()
    await kernel.adapter.open(ino, os.O_WRONLY | os.O_TRUNC, context(1000))
    assert await mode() == 0o755
    for uid, left in ((0, 0o6755), (1000, 0o755)):
        await privileged()
        await kernel.setattr(ino, uid=uid, size=5)
        assert await mode() == left
        await kernel.adapter.open(ino, os.O_WRONLY | os.O_TRUNC, context(uid))
        assert await mode() == left


@pytest.mark.parametrize(("fsetid", "left"), [(True, 0o6755), (False, 0o755)])
async def test_capabilities_decide_and_not_the_user(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, fsetid: bool, left: int
) -> None:
    monkeypatch.setattr(Caller, "may", lambda self, capability: fsetid and capability == CAP_FSETID)
    ino, _ = await kernel.create(b"program")
    for uid in (0, 1000):
        await kernel.setattr(ino, mode=0o6755)
        assert stat.S_IMODE((await kernel.setattr(ino, uid=uid, size=5)).st_mode) == left
        await kernel.setattr(ino, mode=0o6755)
        await kernel.adapter.open(ino, os.O_WRONLY | os.O_TRUNC, context(uid))
        assert stat.S_IMODE((await kernel.adapter.getattr(ino, context())).st_mode) == left


async def test_set_group_id_of_what_is_no_program_is_left_to_members(kernel: Kernel) -> None:
    """Once it meant mandatory locking; who does not belong to the group takes it away all the same."""
    ino, _ = await kernel.create(b"file")
    await kernel.setattr(ino, gid=77)
    for gid, left in ((77, 0o2644), (78, 0o644)):
        await kernel.setattr(ino, mode=0o2644)
        writer = cast("pyfuse3.RequestContext", Context(uid=1000, gid=gid))
        entry = await kernel.adapter.setattr(
            ino, pyfuse3.EntryAttributes(), cast("pyfuse3.SetattrFields", Fields()), None, writer
        )
        assert stat.S_IMODE(entry.st_mode) == left


async def test_what_cannot_be_truncated_keeps_its_privileges(kernel: Kernel) -> None:
    ino, _ = await kernel.create(b"program")
    await kernel.setattr(ino, mode=0o6755)
    with fails(errno.EFBIG):
        await kernel.setattr(ino, uid=1000, size=1 << 50)
    assert stat.S_IMODE((await kernel.adapter.getattr(ino, context())).st_mode) == 0o6755


async def test_a_new_owner_takes_the_privileges_away(kernel: Kernel) -> None:
    ino, _ = await kernel.create(b"program")
    await kernel.setattr(ino, mode=0o6755)
    attr = pyfuse3.EntryAttributes()
    attr.st_uid = 1000
    fields = cast("pyfuse3.SetattrFields", Fields(update_uid=True))
    entry = await kernel.adapter.setattr(ino, attr, fields, None, context())
    assert stat.S_IMODE(entry.st_mode) == 0o755
    assert entry.st_uid == 1000


async def test_only_what_is_named_changes(kernel: Kernel) -> None:
    ino, _ = await kernel.create(b"file")
    entry = await kernel.setattr(ino, mtime_ns=-5, atime_ns=10**18)
    assert (entry.st_mtime_ns, entry.st_atime_ns) == (-5, 10**18)
    assert stat.S_IMODE(entry.st_mode) == 0o644
    entry = await kernel.setattr(ino, size=12345)
    assert entry.st_size == 12345


LIST = acl.encode(
    [acl.Entry(1, 7, 0xFFFFFFFF), acl.Entry(2, 6, 1001), acl.Entry(4, 0, 0xFFFFFFFF), acl.Entry(16, 6, 0xFFFFFFFF),
     acl.Entry(32, 0, 0xFFFFFFFF)]
)  # fmt: skip
"""Rights for one named user, which the permission bits 0760 go with."""


async def test_an_access_list_changes_the_mode_and_the_kernel_hears_of_it(kernel: Kernel) -> None:
    told: list[int] = []
    kernel.adapter.invalidate_attributes = told.append
    ino, _ = await kernel.create(b"file")
    await kernel.adapter.setxattr(ino, acl.ACCESS, LIST, context())
    assert stat.S_IMODE((await kernel.adapter.getattr(ino, context())).st_mode) == 0o760
    assert told == [ino]
    assert await kernel.adapter.getxattr(ino, acl.ACCESS, context()) == LIST


@pytest.mark.parametrize(("uid", "gid", "kept"), [(0, 0, True), (1000, 77, True), (1000, 1000, False)])
async def test_a_list_set_from_outside_of_the_group_clears_set_group_id(
    kernel: Kernel, uid: int, gid: int, kept: bool
) -> None:
    ino, _ = await kernel.create(b"file")
    await kernel.setattr(ino, uid=1000, gid=77)
    await kernel.setattr(ino, mode=0o2755)
    setter = cast("pyfuse3.RequestContext", Context(uid=uid, gid=gid))
    await kernel.adapter.setxattr(ino, acl.ACCESS, LIST, setter)
    assert bool((await kernel.adapter.getattr(ino, context())).st_mode & stat.S_ISGID) is kept


async def test_the_umask_is_applied_unless_there_is_a_default_list(kernel: Kernel) -> None:
    context_ = cast("pyfuse3.RequestContext", Context(umask=0o077))
    made = await kernel.adapter.mkdir(ROOT, b"directory", 0o777, context_)
    assert stat.S_IMODE(made.st_mode) == 0o700
    await kernel.adapter.setxattr(made.st_ino, acl.DEFAULT, LIST, context())
    _, inner = await kernel.adapter.create(made.st_ino, b"file", 0o666, os.O_RDWR, context_)
    assert stat.S_IMODE(inner.st_mode) == 0o660


async def test_who_opens_a_file_for_reading_reads_it(kernel: Kernel) -> None:
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


async def test_trusted_attributes_are_for_root(kernel: Kernel) -> None:
    for name in (b"trusted.a", b"user.a"):
        await kernel.adapter.setxattr(ROOT, name, b"x", context())
    assert list(await kernel.adapter.listxattr(ROOT, context())) == [b"trusted.a", b"user.a"]
    assert list(await kernel.adapter.listxattr(ROOT, context(1000))) == [b"user.a"]


async def test_only_programs_can_be_executed(kernel: Kernel) -> None:
    """Asked where only root may enter; all else is allowed to him."""
    ino, _ = await kernel.create(b"file")
    for mode, executes in ((0o644, False), (0o100, True), (0o010, True), (0o001, True)):
        await kernel.setattr(ino, mode=mode)
        assert await kernel.adapter.access(ino, os.X_OK, context()) is executes
        assert await kernel.adapter.access(ino, os.X_OK | os.R_OK, context()) is executes
        assert await kernel.adapter.access(ino, os.R_OK | os.W_OK, context())
    assert await kernel.adapter.access(ROOT, os.X_OK, context())


@pytest.mark.parametrize(
    ("option", "names", "others"), [("dirsync", True, False), ("sync", True, True), ("rw", False, False)]
)
async def test_with_sync_an_answer_means_durable(option: str, names: bool, others: bool) -> None:
    runtime = make_runtime("deferred")
    async with trio.open_nursery() as nursery:
        await runtime.start(nursery)
        adapter = Kernel(runtime, parse_options([option])).adapter
        journal = runtime.store.journal

        async def is_durable(request: Coroutine[Any, Any, object]) -> bool:
            await runtime.sync()
            await request
            return journal.running.empty

        ctx = context()
        assert await is_durable(adapter.mkdir(ROOT, b"d", 0o755, ctx)) is names
        assert await is_durable(adapter.create(ROOT, b"f", 0o644, os.O_RDWR, ctx)) is names
        assert await is_durable(adapter.mknod(ROOT, b"p", stat.S_IFIFO, 0, ctx)) is names
        assert await is_durable(adapter.symlink(ROOT, b"s", b"target", ctx)) is names
        ino = (await adapter.lookup(ROOT, b"f", ctx)).st_ino
        assert await is_durable(adapter.link(ino, ROOT, b"g", ctx)) is names
        assert await is_durable(adapter.rename(ROOT, b"g", ROOT, b"h", 0, ctx)) is names
        assert await is_durable(adapter.unlink(ROOT, b"h", ctx)) is names
        assert await is_durable(adapter.rmdir(ROOT, b"d", ctx)) is names
        attr = pyfuse3.EntryAttributes()
        attr.st_uid, attr.st_mode, attr.st_size = 5, 0o600, 7
        for fields in (Fields(update_uid=True), Fields(update_mode=True), Fields(update_size=True)):
            change = adapter.setattr(ino, attr, cast("pyfuse3.SetattrFields", fields), None, ctx)
            assert await is_durable(change) is others
        assert await is_durable(adapter.open(ino, os.O_WRONLY | os.O_TRUNC, ctx)) is others
        assert await is_durable(adapter.setxattr(ino, b"user.a", b"v", ctx)) is others
        assert await is_durable(adapter.removexattr(ino, b"user.a", ctx)) is others
        await runtime.close()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("flag", [os.O_SYNC, os.O_DSYNC])
@pytest.mark.parametrize("cache", ["on", "off"])
async def test_a_synchronous_write_is_durable_unless_the_kernel_sends_an_fsync(flag: int, cache: str) -> None:
    runtime = make_runtime("deferred")
    async with trio.open_nursery() as nursery:
        await runtime.start(nursery)
        kernel = Kernel(runtime, parse_options([f"writeback_cache={cache}"]))
        _, fh = await kernel.create(b"file", os.O_RDWR | flag)
        assert await kernel.adapter.write(fh, 0, b"hello") == 5
        assert runtime.store.journal.running.empty is (cache == "off")
        await runtime.close()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("cache", ["on", "off"])
async def test_after_a_refused_writeback_the_kernel_asks_before_each_write(cache: str) -> None:
    """So that whoever goes on writing can be told. Without the cache he has been."""
    runtime = make_runtime("deferred")
    async with trio.open_nursery() as nursery:
        await runtime.start(nursery)
        kernel = Kernel(runtime, parse_options([f"writeback_cache={cache}"]))
        told: list[int] = []
        kernel.adapter.invalidate_attributes = told.append
        ino, fh = await kernel.create(b"file")
        with fails(errno.ENOSPC):
            for number in range(runtime.device.size >> 16):
                assert await kernel.adapter.write(fh, number << 16, bytes(1 << 16)) == 1 << 16
        if cache == "on":
            assert told == [ino]
        await kernel.adapter.open(ino, os.O_WRONLY | os.O_TRUNC, context())  # no space past its end is taken any more
        assert (await kernel.adapter.getattr(ino, context())).attr_timeout == (0 if cache == "on" else 86400)
        await kernel.adapter.release(fh)
        assert (await kernel.adapter.getattr(ino, context())).attr_timeout == 86400
        await runtime.close()
        nursery.cancel_scope.cancel()


async def test_only_devices_have_numbers(kernel: Kernel) -> None:
    for kind, number in ((stat.S_IFCHR, 259), (stat.S_IFBLK, 259), (stat.S_IFIFO, 0), (stat.S_IFREG, 0)):
        made = await kernel.adapter.mknod(ROOT, b"%d" % kind, kind | 0o600, 259, context())
        assert made.st_rdev == number


async def test_requests_are_timed_by_name(kernel: Kernel) -> None:
    await kernel.create(b"file")
    assert kernel.runtime.requests.snapshot()["create"]["count"] == 1
