"""The protocol adapter: maps each FUSE request to one or a few operations of the runtime, without logic of its own.

The kernel checks permissions, access control lists and access modes (`default_permissions`); with the writeback cache
it also reads through handles that were opened for writing only.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, TypeVar

import pyfuse3

from deferfs.errors import FsError
from deferfs.mount.fuse import operations
from deferfs.mount.fuse.anomalies import Anomalies
from deferfs.mount.fuse.attributes import Attributes, changes_of, statfs_data
from deferfs.mount.fuse.callers import CAP_SYS_ADMIN, Caller
from deferfs.mount.fuse.handler import handler
from deferfs.mount.fuse.handles import Handles
from deferfs.mount.fuse.refused_writes import RefusedWrites
from deferfs.mount.host.options import MountOptions
from deferfs.mount.runtime.activity import Actor
from deferfs.ondisk.inode import Inode
from deferfs.store.directories import DirectoryEntry
from deferfs.volume import acl, attributes, namespace, xattrs
from deferfs.volume.new_inode import Credentials, NewInode

if TYPE_CHECKING:
    from deferfs.mount.fuse.filesystem import Filesystem
    from deferfs.store.plan import Plan

_log: Final = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

_FORGET: Final = Actor("forget")
_EXECUTE_BITS: Final = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH


class Adapter(pyfuse3.Operations):
    """The handlers of one mount. `writes_total` and `writes_in_flight` count WRITE requests."""

    supports_dot_lookup = True

    def __init__(
        self,
        filesystem: Filesystem,
        options: MountOptions,
        *,
        enforce_lists: bool = False,
        stamped: Callable[[int], None] | None = None,
    ) -> None:
        """`enforce_lists`: the kernel enforces access control lists, and with them permissions; otherwise they are only
        stored, shown and inherited. `stamped` is called with the times in a SETATTR, in ns, before they are set
        (`FileClock.reach`).
        """
        super().__init__()
        self._filesystem = filesystem
        self._volume = filesystem.volume
        self.requests = filesystem.requests
        self.activity = filesystem.activity
        self.anomalies = Anomalies(filesystem.volume.inodes.anomalies)
        self._refused = RefusedWrites()
        self._attributes = Attributes(
            filesystem.volume,
            untrusted=self._refused.available,
            entry_timeout=options.entry_timeout,
            attr_timeout=options.attr_timeout,
        )
        self.enable_acl = enforce_lists
        self._stamped = stamped
        self.invalidate_attributes: Callable[[int], None] = _not_attached
        """Notifies the kernel that attributes changed in a way that it does not expect."""
        self.enable_writeback_cache = options.writeback_cache and not options.read_only
        self._durable_names = options.durable_names
        self._durable_attributes = options.durable_attributes
        self.writes_total = 0
        self.writes_in_flight = 0
        self.buffer_bytes = 0
        """Bytes of data of READ and WRITE requests in flight. A WRITE counts twice: libfuse's buffer and pyfuse3's
        copy."""
        filesystem.volume.store.memory.add_account("buffers", lambda: self.buffer_bytes)
        self._handles = Handles(filesystem.volume, self.anomalies, writeback_cache=self.enable_writeback_cache)

    # --- names ---
    def _names(
        self, op: Callable[Concatenate[Plan, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, T]:
        """Run a change of a directory; with `dirsync` make it durable before the reply."""
        change = self._filesystem.run(op, *args, **kwargs)
        return self._durably(change) if self._durable_names else change

    def _attribute(
        self, op: Callable[Concatenate[Plan, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, T]:
        """Run any other change; with `sync` make it durable before the reply."""
        change = self._filesystem.run(op, *args, **kwargs)
        return self._durably(change) if self._durable_attributes else change

    async def _durably(self, change: Coroutine[Any, Any, T]) -> T:
        result = await change
        await self._filesystem.sync()
        return result

    @handler
    async def lookup(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        """LOOKUP. A missing name is a reply that the kernel caches, not an error."""
        record = await self._filesystem.run(operations.lookup, self._volume, parent_inode, name)
        return self._attributes.nothing() if record is None else self._attributes.of(record)

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """FORGET. Under `deferred` this completes without a single await."""
        start = time.perf_counter_ns()
        running = self.activity.begin(_FORGET, "forget")
        try:
            await self._filesystem.forget(list(inode_list))
        except Exception:
            _log.exception("forget: internal error")
        finally:
            self.anomalies.tell()
            end = time.perf_counter_ns()
            self.requests.add("forget", end - start)
            self.activity.end(running, start, end)

    async def _create(self, parent: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext, rdev: int = 0) -> Inode:
        return await self._names(operations.create, self._volume, parent, name, NewInode(mode, _maker(ctx), rdev))

    @handler
    async def create(
        self,
        parent_inode: int,
        name: bytes,
        mode: int,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        """CREATE: create and open a file. deferfs applies the umask (on mounts of ordinary users the kernel has)."""
        record = await self._create(parent_inode, name, stat.S_IFREG | stat.S_IMODE(mode), ctx)
        return _opened(self._handles.open(record, flags)), self._attributes.of(record)

    @handler
    async def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """MKNOD: any kind of file but a directory."""
        is_device = stat.S_ISCHR(mode) or stat.S_ISBLK(mode)
        record = await self._create(parent_inode, name, mode, ctx, rdev if is_device else 0)
        return self._attributes.of(record)

    @handler
    async def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """MKDIR."""
        record = await self._create(parent_inode, name, stat.S_IFDIR | stat.S_IMODE(mode), ctx)
        return self._attributes.of(record)

    @handler
    async def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """SYMLINK."""
        record = await self._names(operations.symlink, self._volume, parent_inode, name, target, _maker(ctx))
        return self._attributes.of(record)

    @handler
    async def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """LINK."""
        record = await self._names(operations.link, self._volume, inode, new_parent_inode, new_name)
        return self._attributes.of(record)

    @handler
    async def unlink(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """UNLINK."""
        await self._filesystem.throttle.admit(ctx.pid)
        await self._names(namespace.unlink, self._volume, parent_inode, name)

    @handler
    async def rmdir(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """RMDIR."""
        await self._filesystem.throttle.admit(ctx.pid)
        await self._names(namespace.rmdir, self._volume, parent_inode, name)

    @handler
    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        """RENAME, with NOREPLACE, EXCHANGE and WHITEOUT."""
        await self._filesystem.throttle.admit(ctx.pid)
        await self._names(
            namespace.rename,
            self._volume,
            parent_inode_old,
            name_old,
            parent_inode_new,
            name_new,
            flags,
            _maker(ctx),
        )

    @handler
    async def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        """READLINK."""
        return await self._filesystem.readlink(inode)

    # --- attributes ---
    @handler
    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        """GETATTR. The kernel may also send one at the start of a write(2)."""
        record = await self._filesystem.run(attributes.getattr, self._volume, inode)
        if inode in self._refused.available:
            self._refused.check(inode, record.size, attributes.statfs(self._volume).available, ctx.pid)
        return self._attributes.of(record)

    @handler
    async def setattr(
        self,
        inode: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        """SETATTR. One without any field means that a process without CAP_FSETID is about to write."""
        changes = changes_of(attr, fields)
        if self._stamped is not None:
            for name in ("atime_ns", "mtime_ns"):
                if name in changes:
                    self._stamped(changes[name])
        if fields.update_size:
            await self._truncate(inode, attr.st_size, ctx)
        if fields.update_uid or fields.update_gid or not (changes or fields.update_size):
            record = await self._attribute(operations.setattr, self._volume, inode, changes, Caller(ctx))
        elif changes:
            record = await self._attribute(attributes.setattr, self._volume, inode, **changes)
        else:
            record = await self._filesystem.run(attributes.getattr, self._volume, inode)
        return self._attributes.of(record)

    async def _truncate(self, ino: int, length: int, ctx: pyfuse3.RequestContext) -> None:
        caller = Caller(ctx)
        await self._filesystem.until_done(lambda plan: operations.truncate(plan, self._volume, ino, length, caller))
        if self._durable_attributes:
            await self._filesystem.sync()

    @handler
    async def access(self, inode: int, mode: int, ctx: pyfuse3.RequestContext) -> bool:
        """ACCESS: sent only without default_permissions, i.e. on mounts of root for root: grant all but X_OK on a file
        without an x bit.
        """
        if not mode & os.X_OK:
            return True
        record = await self._filesystem.run(attributes.getattr, self._volume, inode)
        return not stat.S_ISREG(record.mode) or bool(record.mode & _EXECUTE_BITS)

    @handler
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        """STATFS."""
        return statfs_data(attributes.statfs(self._volume))

    # --- directories ---
    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        """OPENDIR: the handle is the inode number."""
        return inode

    async def releasedir(self, fh: int) -> None:
        """RELEASEDIR: there is nothing to release."""

    @handler
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """READDIRPLUS: the cookie of an entry is its key in the directory.

        An error is sent only as a whole reply. Once entries, whose lookups are counted, are in the reply, the error is
        left to the next request.
        """
        full = begun = False
        note = self._filesystem.note

        def accept(entry: DirectoryEntry, record: Inode | None) -> bool:
            nonlocal full, begun
            attributes = self._attributes
            found = attributes.of_name(entry.ino, entry.file_type) if record is None else attributes.of(record)
            full = not pyfuse3.readdir_reply(token, entry.name, found, entry.key)
            begun = begun or not full
            return not full

        after: int | None = start_id
        while after is not None and not full:
            try:
                after = await self._filesystem.run(operations.readdir, self._volume, fh, after, accept, note)
            except FsError:
                if begun:
                    return
                raise

    @handler
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        """FSYNCDIR."""
        await self._filesystem.fsync(fh, data_only=datasync)

    # --- files ---
    @handler
    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        """OPEN. The kernel leaves O_TRUNC to the filesystem.

        An open for reading updates the access time: reads from the kernel's cache are not seen by the daemon.
        """
        if flags & os.O_TRUNC:
            await self._truncate(inode, 0, ctx)
        record = await self._filesystem.run(attributes.getattr, self._volume, inode)
        fh = self._handles.open(record, flags)
        if record.size and not self._handles.get(fh).quiet and attributes.accessed(self._volume, record):
            self.invalidate_attributes(inode)
        return _opened(fh)

    @handler
    async def read(self, fh: int, off: int, size: int) -> bytes:
        """READ."""
        handle = self._handles.get(fh)
        self.buffer_bytes += size
        try:
            return await self._filesystem.read(handle.ino, off, size, quiet=handle.quiet)
        finally:
            self.buffer_bytes -= size

    @handler
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        """WRITE. Short only if write(2) can return that to its caller; a writeback has no caller."""
        handle = self._handles.get(fh)
        self.writes_total += 1
        self.writes_in_flight += 1
        self.buffer_bytes += 2 * len(buf)
        try:
            done = await self._filesystem.write(handle.ino, off, buf, whole=self.enable_writeback_cache)
            if handle.sync:
                await self._filesystem.fsync(handle.ino, data_only=True)
        except FsError as error:
            if error.errno == errno.ENOSPC and self.enable_writeback_cache:
                self._refused.available[handle.ino] = attributes.statfs(self._volume).available
                self.invalidate_attributes(handle.ino)
            raise
        finally:
            self.writes_in_flight -= 1
            self.buffer_bytes -= 2 * len(buf)
        return done

    @handler
    async def flush(self, fh: int) -> None:
        """FLUSH: close(2) has nothing to report that fsync would not; after this ENOSYS the kernel stops asking."""
        raise pyfuse3.FUSEError(errno.ENOSYS)

    @handler
    async def release(self, fh: int) -> None:
        """RELEASE. The last one may leave work for the evict policy: blocks past EOF, a deleted file."""
        handle = self._handles.close(fh)
        if handle is None:
            return
        self._refused.available.pop(handle.ino, None)
        await self._filesystem.release(handle.reference)

    def open_inodes(self) -> list[int]:
        """The inodes with open handles."""
        return self._handles.inodes()

    @handler
    async def fsync(self, fh: int, datasync: bool) -> None:
        """FSYNC."""
        await self._filesystem.fsync(self._handles.get(fh).ino, data_only=datasync)

    # --- extended attributes ---
    @handler
    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        """GETXATTR."""
        return await self._filesystem.run(xattrs.getxattr, self._volume, inode, name)

    @handler
    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> Sequence[bytes]:
        """LISTXATTR: `trusted.` names are listed to administrators only."""
        names = await self._filesystem.run(xattrs.listxattr, self._volume, inode)
        if not any(map(_is_trusted, names)) or Caller(ctx).may(CAP_SYS_ADMIN):
            return names
        return [name for name in names if not _is_trusted(name)]

    @handler
    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: pyfuse3.RequestContext) -> None:
        """SETXATTR; pyfuse3 has already handled XATTR_CREATE and XATTR_REPLACE."""
        vouched = Caller(ctx).vouches_for if name == acl.ACCESS else None
        await self._attribute(xattrs.setxattr, self._volume, inode, name, value, vouched=vouched)
        if name == acl.ACCESS and not self.enable_acl:
            self.invalidate_attributes(inode)  # an access ACL changes the mode

    @handler
    async def removexattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """REMOVEXATTR."""
        await self._attribute(xattrs.removexattr, self._volume, inode, name)


def _maker(ctx: pyfuse3.RequestContext) -> Credentials:
    return Credentials(ctx.uid, ctx.gid, ctx.umask)


def _opened(fh: int) -> pyfuse3.FileInfo:
    return pyfuse3.FileInfo(fh=fh, keep_cache=True)


def _not_attached(_ino: int) -> None:
    """Default of `invalidate_attributes`, until the mount is attached."""


def _is_trusted(name: bytes) -> bool:
    return name.startswith(b"trusted.")
