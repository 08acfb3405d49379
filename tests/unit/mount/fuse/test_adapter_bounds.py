"""Fields with a right checksum and impossible values: what the kernel is told, for each row of the table in
docs/on-disk-format.md, and that the other names of the directory are told all the same.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import cast

import pyfuse3
import pytest
import trio

from deferfs.errors import EUCLEAN, FsError
from deferfs.limits import FILE_BYTES_MAX
from deferfs.mount.fuse.adapter import Adapter
from deferfs.mount.host.options import parse_options
from deferfs.mount.runtime.runtime import Runtime
from deferfs.ondisk.directory import pack_entry
from deferfs.ondisk.inode import INODE_FILE_INO, Inode, InodeBlock
from deferfs.ondisk.xattr import pack_xattrs
from deferfs.store.plan import Plan
from deferfs.volume import files, xattrs
from tests.unit.mount.fuse.requests import context
from tests.unit.volumes import fresh_driver

ROOT = pyfuse3.ROOT_INODE
DOTS = {b".", b".."}
OTHERS = {b"before", b"between", b"last"}
FIRST_KEY = 300
"""Lower than that of any name here: its entry is the first that is listed."""
DOCUMENT = (Path(__file__).parents[4] / "docs" / "on-disk-format.md").read_text()


class Mount:
    """A directory with OTHERS and one inode that is damaged."""

    def __init__(self, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
        self.runtime = runtime
        self.adapter = Adapter(runtime, parse_options([]))
        self.listed: dict[bytes, pyfuse3.EntryAttributes] = {}
        self.ino = self.last_key = 0
        monkeypatch.setattr(pyfuse3, "readdir_reply", self._reply)

    def _reply(self, _: object, name: bytes, attributes: pyfuse3.EntryAttributes, key: int) -> bool:
        assert 0 < key < 1 << 63
        assert name not in self.listed
        self.listed[name] = attributes
        self.last_key = key
        return True

    async def make(self, mode: int) -> None:
        for name in OTHERS:
            _, made = await self.adapter.create(ROOT, name, 0o600, 0, context())
            assert made.st_ino
        made = await self.adapter.mknod(ROOT, b"bad", mode, 5, context())
        self.ino = made.st_ino
        await self.adapter.forget([(self.ino, 1)])

    async def change(self, change: Callable[[Inode], object], ino: int = 0) -> None:
        await self.runtime.run(lambda plan: change(plan.store.inodes.modify(plan, ino or self.ino)))

    async def add_entry(self, key: int, ino: int, file_type: int, name: bytes) -> None:
        def add(plan: Plan) -> None:
            root = plan.store.inodes.modify(plan, ROOT)
            root.set_entries(root.form, tuple(sorted((*root.entries, (key, pack_entry(ino, file_type, name))))))

        await self.runtime.run(add)

    async def names(self) -> set[bytes]:
        self.listed.clear()
        await self.adapter.readdir(ROOT, 0, cast("pyfuse3.ReaddirToken", None))
        return set(self.listed) - DOTS

    async def error(self, name: bytes = b"bad") -> int:
        with pytest.raises(pyfuse3.FUSEError) as caught:
            await self.adapter.lookup(ROOT, name, context())
        return int(caught.value.errno)

    async def list_bad_alone(self) -> None:
        """Its name is listed without an inode, and the FORGET that the kernel sends for it is expected."""
        inodes = self.runtime.volume.inodes
        assert await self.names() == OTHERS | {b"bad"}
        found = self.listed[b"bad"]
        assert (found.st_ino, found.st_size, found.entry_timeout) == (self.ino, -1, 0)
        assert self.runtime.corruptions_total
        before = {inode.ino: inode.lookups for inode in inodes.table.values() if inode.active}
        await self.adapter.forget([(self.ino, 1)])
        assert not inodes.anomalies
        assert {inode.ino: inode.lookups for inode in inodes.table.values() if inode.active} == before
        await self.adapter.forget([(self.ino, 1)])
        assert inodes.anomalies


@pytest.fixture
async def mount(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Mount]:
    driver = fresh_driver()
    runtime = Runtime(driver.device, driver.volume, strict=True)
    async with trio.open_nursery() as nursery:
        await runtime.start(nursery)
        made = Mount(runtime, monkeypatch)
        await made.make(stat.S_IFCHR | 0o600)
        yield made
        nursery.cancel_scope.cancel()


def test_each_row_of_the_document_has_a_test() -> None:
    table = DOCUMENT.partition("\n## What goes to the kernel\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")][1:]
    tested = {row for test in globals().values() for row in getattr(test, "rows", ())}
    assert tested == set(rows)


def row(*names: str) -> Callable[[Callable[..., object]], Callable[..., object]]:
    """Mark a test as that of these rows."""

    def mark(test: Callable[..., object]) -> Callable[..., object]:
        test.rows = names  # type: ignore[attr-defined]
        return test

    return mark


@row("`mode` of an inode")
@pytest.mark.parametrize("mode", [0o170000 | 0o644, 0o030000, 0o644, 1 << 16 | stat.S_IFREG, 0xFFFF_FFFF])
async def test_mode(mount: Mount, mode: int) -> None:
    await mount.change(lambda inode: setattr(inode, "mode", mode))
    assert await mount.error() == EUCLEAN
    await mount.list_bad_alone()


@row("`size` of an inode")
@pytest.mark.parametrize("size", [FILE_BYTES_MAX + 1, (1 << 63) - 1, (1 << 64) - 1])
async def test_size(mount: Mount, size: int) -> None:
    await mount.change(lambda inode: setattr(inode, "size", size))
    assert await mount.error() == EUCLEAN
    await mount.list_bad_alone()


@row("`blocks` of an inode")
@pytest.mark.parametrize("blocks", [(1 << 48) + 1, (1 << 64) - 1])
async def test_blocks(mount: Mount, blocks: int) -> None:
    await mount.change(lambda inode: setattr(inode, "blocks", blocks))
    assert await mount.error() == EUCLEAN
    await mount.list_bad_alone()


@row("`nlink` of an inode")
@pytest.mark.parametrize("nlink", [0, (1 << 32) - 1])
async def test_nlink(mount: Mount, nlink: int) -> None:
    await mount.change(lambda inode: setattr(inode, "nlink", nlink))
    assert await mount.names() == OTHERS | {b"bad"}
    assert mount.listed[b"bad"].st_nlink == nlink
    adapter = mount.adapter
    change = adapter.link(mount.ino, ROOT, b"another", context()) if nlink else adapter.unlink(ROOT, b"bad", context())
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await change
    assert caught.value.errno == (errno.EMLINK if nlink else EUCLEAN)
    await mount.runtime.sync()


@row("`uid`, `gid` of an inode", "`generation` of an inode")
async def test_owners_and_generation(mount: Mount) -> None:
    highest = (1 << 32) - 1

    def spoil(inode: Inode) -> None:
        inode.uid = inode.gid = inode.generation = highest

    await mount.change(spoil)
    found = await mount.adapter.lookup(ROOT, b"bad", context())
    assert (found.st_uid, found.st_gid, found.generation) == (highest, highest, highest)
    assert await mount.names() == OTHERS | {b"bad"}


@row("`atime`, `mtime`, `ctime`, `crtime`")
@pytest.mark.parametrize("time_ns", [-(1 << 63), -1, (1 << 63) - 1])
async def test_times(mount: Mount, time_ns: int) -> None:
    def spoil(inode: Inode) -> None:
        inode.atime = inode.mtime = inode.ctime = inode.crtime = time_ns

    await mount.change(spoil)
    found = await mount.adapter.lookup(ROOT, b"bad", context())
    assert (found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns) == (time_ns, time_ns, time_ns)
    assert await mount.names() == OTHERS | {b"bad"}


@row("`rdev` of a device", "`rdev` of others")
@pytest.mark.parametrize("mode", [stat.S_IFCHR | 0o600, stat.S_IFIFO | 0o600])
async def test_rdev(mount: Mount, mode: int) -> None:
    def spoil(inode: Inode) -> None:
        inode.mode, inode.rdev = mode, (1 << 63) + 0x105

    await mount.change(spoil)
    assert (await mount.adapter.lookup(ROOT, b"bad", context())).st_rdev == 0x105
    assert await mount.names() == OTHERS | {b"bad"}


@row("`parent` of a directory")
@pytest.mark.parametrize("parent", [0, INODE_FILE_INO, 4711, (1 << 64) - 1])
async def test_parent(mount: Mount, parent: int) -> None:
    await mount.change(lambda inode: setattr(inode, "parent", parent), ROOT)
    assert await mount.names() == OTHERS | {b"bad"}
    assert mount.listed[b".."].st_ino == parent
    assert not mount.runtime.volume.inodes.without_inode, "the kernel makes no inode of dots, and forgets none"


@row("`size` of a symlink")
async def test_symlink(mount: Mount) -> None:
    def spoil(inode: Inode) -> None:
        inode.mode, inode.size = stat.S_IFLNK | 0o777, 4096

    await mount.change(spoil)
    assert await mount.names() == OTHERS | {b"bad"}
    with pytest.raises(FsError) as caught:
        await mount.runtime.run(files.readlink, mount.runtime.volume, mount.ino)
    assert caught.value.errno == EUCLEAN


@row("`ino` of an entry")
@pytest.mark.parametrize("ino", [INODE_FILE_INO, 4, 4711, (1 << 63) + 1, (1 << 64) - 1])
async def test_inode_of_an_entry(mount: Mount, ino: int) -> None:
    await mount.adapter.unlink(ROOT, b"bad", context())
    await mount.add_entry(FIRST_KEY, ino, 8, b"bad")
    mount.ino = ino
    assert await mount.error() == errno.ESTALE
    mount.runtime.volume.inodes.anomalies.clear()
    await mount.list_bad_alone()


@row("`ino` of an entry")
async def test_an_entry_without_a_number(mount: Mount) -> None:
    await mount.adapter.unlink(ROOT, b"bad", context())
    await mount.add_entry(FIRST_KEY, 0, 8, b"bad")
    assert await mount.names() == OTHERS | {b"bad"}
    assert not mount.runtime.volume.inodes.without_inode, "number 0 says that there is no inode: nothing is forgotten"


@row("`file_type` of an entry")
async def test_type_of_an_entry(mount: Mount) -> None:
    await mount.change(lambda inode: setattr(inode, "mode", 0o170000))
    await mount.adapter.unlink(ROOT, b"before", context())
    await mount.add_entry(FIRST_KEY, mount.ino, 0xFA, b"typed")
    assert await mount.names() == (OTHERS - {b"before"}) | {b"bad", b"typed"}
    assert mount.listed[b"typed"].st_mode == 0xA << 12


@row("`name` of an entry")
@pytest.mark.parametrize("name", [b"", b"a/b", b"a\0b", b"x" * 256])
async def test_name_of_an_entry(mount: Mount, name: bytes) -> None:
    await mount.add_entry(FIRST_KEY, mount.ino, 8, name)
    assert await mount.names() == OTHERS | {b"bad"}
    assert mount.runtime.corruptions_total == 1


@row("key of an entry")
@pytest.mark.parametrize("key", [1 << 63, (1 << 64) - 1])
async def test_key_of_an_entry(mount: Mount, key: int) -> None:
    await mount.add_entry(key, mount.ino, 8, b"unreachable")
    assert await mount.names() == OTHERS | {b"bad"}
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await mount.adapter.readdir(ROOT, mount.last_key, cast("pyfuse3.ReaddirToken", None))
    assert caught.value.errno == EUCLEAN


@row("`name` of an xattr")
async def test_name_of_an_attribute(mount: Mount) -> None:
    await mount.change(lambda inode: setattr(inode, "xattrs", pack_xattrs({b"user.a": b"1", b"user.b\0\0c": b"2"})))
    assert await mount.adapter.listxattr(mount.ino, context()) == [b"user.a"]
    await mount.change(lambda inode: setattr(inode, "xattrs", pack_xattrs({b"": b"1", b"user.a": b"2"})))
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await mount.adapter.listxattr(mount.ino, context())
    assert caught.value.errno == EUCLEAN


@row("value of an xattr")
async def test_value_of_an_attribute(mount: Mount) -> None:
    """What is longer than any buffer of the kernel is not cut down here: the kernel answers for it."""
    await mount.change(lambda inode: setattr(inode, "xattrs", pack_xattrs({b"user.a": bytes(300)})))
    volume = mount.runtime.volume
    assert await mount.runtime.run(xattrs.getxattr, volume, mount.ino, b"user.a") == bytes(300)


async def test_a_forget_of_a_name_alone_is_told_from_those_of_the_inode(mount: Mount) -> None:
    """Whatever their order: the inode is held until the last of them."""
    inodes = mount.runtime.volume.inodes
    mode = stat.S_IFCHR | 0o600
    await mount.change(lambda inode: setattr(inode, "mode", 0o170000))
    await mount.names()
    await mount.names()
    assert inodes.without_inode == {mount.ino: 2}

    def mend(plan: Plan) -> None:
        address, slot = plan.store.inodes.locate(plan, mount.ino)
        plan.get(address, InodeBlock).record(plan.store.fmt, address, slot).mode = mode

    await mount.runtime.run(mend)
    for _ in range(3):
        assert (await mount.adapter.lookup(ROOT, b"bad", context())).st_ino == mount.ino
    for count, left in ((1, 3), (2, 2), (1, 1), (1, 0)):
        await mount.adapter.forget([(mount.ino, count)])
        known = inodes.table.get(mount.ino)
        assert (known.lookups if known else 0) == left
    assert not inodes.anomalies
