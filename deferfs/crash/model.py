"""A model filesystem: the effects of POSIX operations on a tree, without an implementation.

It shares no code with the store. Every state is immutable and remains comparable, so that a whole history can be kept:
an operation replaces the inodes it changes and shares the others.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from deferfs.crash.content import EMPTY, Content
from deferfs.limits import (
    FILE_BYTES_MAX,
    NAME_BYTES_MAX,
    XATTR_NAME_BYTES_MAX,
    XATTR_VALUE_BYTES_MAX,
)

ROOT: Final = 1
NOREPLACE: Final = 1
EXCHANGE: Final = 2
XATTR_CREATE: Final = 1
XATTR_REPLACE: Final = 2


class ModelError(Exception):
    """The operation fails with `errno` and changes nothing."""

    def __init__(self, errno: int) -> None:
        super().__init__(errno)
        self.errno = errno


@dataclass(frozen=True, slots=True)
class Node:
    """One inode. Two nodes are equal when their metadata is; `content` is compared by other rules.

    `size` of a directory is its number of entries. `times` are atime, mtime, ctime and creation time, and `generation`
    is the inode's: both are copied from the volume after each operation, as the model has neither clock nor entropy.
    """

    mode: int
    uid: int = 0
    gid: int = 0
    nlink: int = 1
    size: int = 0
    rdev: int = 0
    parent: int = 0
    target: bytes = b""
    entries: Mapping[bytes, int] = field(default_factory=dict)
    xattrs: Mapping[bytes, bytes] = field(default_factory=dict)
    times: tuple[int, int, int, int] = (0, 0, 0, 0)
    generation: int = 0
    content: Content = field(default=EMPTY, compare=False, repr=False)

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)


Nodes = Mapping[int, Node]
"""A state of the filesystem: every inode by number, including those without a name (nlink 0) until they are dropped."""


class Model:
    """The expected filesystem. `nodes` is replaced by every operation, never changed."""

    def __init__(self, nodes: Nodes | None = None) -> None:
        root = Node(stat.S_IFDIR | 0o755, nlink=2, parent=ROOT)
        self.nodes: Nodes = {ROOT: root} if nodes is None else nodes

    # --- lookups ---
    def node(self, ino: int) -> Node:
        found = self.nodes.get(ino)
        if found is None:
            raise ModelError(errno.ESTALE)
        return found

    def directory(self, ino: int) -> Node:
        found = self.node(ino)
        if not found.is_directory:
            raise ModelError(errno.ENOTDIR)
        return found

    def _find(self, parent: int, name: bytes) -> int | None:
        _check_name(name)
        return self.directory(parent).entries.get(name)

    def _existing(self, parent: int, name: bytes) -> int:
        found = self._find(parent, name)
        if found is None:
            raise ModelError(errno.ENOENT)
        return found

    # --- changes ---
    def _set(self, changes: dict[int, Node]) -> None:
        self.nodes = {**self.nodes, **changes}

    def _change(self, ino: int, **changes: Any) -> None:
        self._set({ino: replace(self.node(ino), **changes)})

    def _enter(self, parent: int, name: bytes, ino: int) -> None:
        directory = self.directory(parent)
        if not directory.nlink:
            raise ModelError(errno.ENOENT)
        entries = {**directory.entries, name: ino}
        self._change(parent, entries=entries, size=len(entries))

    def _leave(self, parent: int, name: bytes) -> None:
        entries = dict(self.directory(parent).entries)
        del entries[name]
        self._change(parent, entries=entries, size=len(entries))

    def _add_links(self, ino: int, count: int) -> None:
        self._change(ino, nlink=self.node(ino).nlink + count)

    def _drop_name(self, ino: int) -> None:
        node = self.node(ino)
        self._change(ino, nlink=0 if node.is_directory else node.nlink - 1)

    def create(self, parent: int, name: bytes, node: Node, ino: int) -> None:
        """Create inode `ino` like `node`. Set-group-ID directories pass on their group."""
        if self._find(parent, name) is not None:
            raise ModelError(errno.EEXIST)
        directory = self.directory(parent)
        if directory.mode & stat.S_ISGID:
            bit = stat.S_ISGID if node.is_directory else 0
            node = replace(node, gid=directory.gid, mode=node.mode | bit)
        if node.is_directory:
            node = replace(node, nlink=2, parent=parent)
        self._enter(parent, name, ino)
        self._set({ino: node})
        if node.is_directory:
            self._add_links(parent, 1)

    def link(self, ino: int, parent: int, name: bytes) -> None:
        """Add a name to a file."""
        _check_name(name)
        node = self.node(ino)
        if node.is_directory:
            raise ModelError(errno.EPERM)
        if not node.nlink:
            raise ModelError(errno.ENOENT)
        if self._find(parent, name) is not None:
            raise ModelError(errno.EEXIST)
        self._enter(parent, name, ino)
        self._add_links(ino, 1)

    def unlink(self, parent: int, name: bytes) -> None:
        """Remove a name of a non-directory."""
        ino = self._existing(parent, name)
        if self.node(ino).is_directory:
            raise ModelError(errno.EISDIR)
        self._leave(parent, name)
        self._drop_name(ino)

    def rmdir(self, parent: int, name: bytes) -> None:
        """Remove an empty directory."""
        ino = self._existing(parent, name)
        if self.directory(ino).entries:
            raise ModelError(errno.ENOTEMPTY)
        self._leave(parent, name)
        self._add_links(parent, -1)
        self._drop_name(ino)

    def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int = 0) -> None:
        """rename(2), with NOREPLACE or EXCHANGE."""
        _check_name(new_name)
        if flags not in (0, NOREPLACE, EXCHANGE):
            raise ModelError(errno.EINVAL)
        source = self._existing(parent, name)
        target = self._find(new_parent, new_name)
        if flags == NOREPLACE and target is not None:
            raise ModelError(errno.EEXIST)
        if flags == EXCHANGE and target is None:
            raise ModelError(errno.ENOENT)
        if target == source:
            return
        if not self.node(new_parent).nlink:
            raise ModelError(errno.ENOENT)
        self._check_ancestry(source, new_parent)
        if flags == EXCHANGE:
            assert target is not None
            self._check_ancestry(target, parent)
            self._retarget(parent, name, target)
            self._retarget(new_parent, new_name, source)
            self._move_parent(target, new_parent, parent)
        else:
            if target is not None:
                self._check_replace(source, target)
            self._enter(new_parent, new_name, source)
            self._leave(parent, name)
            if target is not None:
                if self.node(target).is_directory:
                    self._add_links(new_parent, -1)
                self._drop_name(target)
        self._move_parent(source, parent, new_parent)

    def _retarget(self, parent: int, name: bytes, ino: int) -> None:
        self._change(parent, entries={**self.directory(parent).entries, name: ino})

    def _move_parent(self, ino: int, old: int, new: int) -> None:
        if self.node(ino).is_directory:
            self._add_links(old, -1)
            self._add_links(new, 1)
            self._change(ino, parent=new)

    def _check_ancestry(self, moved: int, into: int) -> None:
        if not self.node(moved).is_directory:
            return
        while into != ROOT:
            if into == moved:
                raise ModelError(errno.EINVAL)
            into = self.node(into).parent

    def _check_replace(self, source: int, target: int) -> None:
        moves_directory = self.node(source).is_directory
        if self.node(target).is_directory:
            if not moves_directory:
                raise ModelError(errno.EISDIR)
            if self.node(target).entries:
                raise ModelError(errno.ENOTEMPTY)
        elif moves_directory:
            raise ModelError(errno.ENOTDIR)

    def write(self, ino: int, offset: int, data: bytes) -> None:
        """Write bytes at `offset`; a gap before them reads as zeros."""
        node = self._file(ino)
        if offset + len(data) > FILE_BYTES_MAX:
            raise ModelError(errno.EFBIG)
        if data:
            size = max(node.size, offset + len(data))
            self._change(ino, size=size, content=node.content.write(offset, data))

    def truncate(self, ino: int, size: int) -> None:
        """Set the size; added bytes read as zeros."""
        node = self._file(ino)
        if size > FILE_BYTES_MAX:
            raise ModelError(errno.EFBIG)
        self._change(ino, size=size, content=node.content.cut(size))

    def _file(self, ino: int) -> Node:
        node = self.node(ino)
        if not node.is_file:
            raise ModelError(errno.EISDIR if node.is_directory else errno.EINVAL)
        return node

    def setattr(self, ino: int, *, mode: int | None = None, uid: int | None = None, gid: int | None = None) -> None:
        """Permission bits and owners."""
        node = self.node(ino)
        self._change(
            ino,
            mode=node.mode if mode is None else stat.S_IFMT(node.mode) | mode & 0o7777,
            uid=node.uid if uid is None else uid,
            gid=node.gid if gid is None else gid,
        )

    def setxattr(self, ino: int, name: bytes, value: bytes, flags: int = 0) -> None:
        """One extended attribute, replaced as a whole."""
        if len(name) > XATTR_NAME_BYTES_MAX:
            raise ModelError(errno.ERANGE)
        if len(value) > XATTR_VALUE_BYTES_MAX:
            raise ModelError(errno.E2BIG)
        xattrs = self.node(ino).xattrs
        if flags & XATTR_CREATE and name in xattrs:
            raise ModelError(errno.EEXIST)
        if flags & XATTR_REPLACE and name not in xattrs:
            raise ModelError(errno.ENODATA)
        self._change(ino, xattrs={**xattrs, name: value})

    def removexattr(self, ino: int, name: bytes) -> None:
        """Remove an extended attribute."""
        xattrs = dict(self.node(ino).xattrs)
        if xattrs.pop(name, None) is None:
            raise ModelError(errno.ENODATA)
        self._change(ino, xattrs=xattrs)

    def drop(self, ino: int) -> None:
        """Remove an inode without a name."""
        assert not self.node(ino).nlink
        self.nodes = {number: node for number, node in self.nodes.items() if number != ino}

    def observe(self, ino: int, times: tuple[int, int, int, int], generation: int) -> None:
        """Copy the times and the generation of an inode from the volume."""
        if ino in self.nodes:
            self._change(ino, times=times, generation=generation)


def _check_name(name: bytes) -> None:
    if len(name) > NAME_BYTES_MAX:
        raise ModelError(errno.ENAMETOOLONG)


def linked(nodes: Nodes) -> dict[int, Node]:
    """The inodes that have a name."""
    return {ino: node for ino, node in nodes.items() if node.nlink}


def names_of(nodes: Nodes, ino: int) -> set[tuple[int, bytes]]:
    """(directory, name) of each name of an inode."""
    return {(parent, name) for parent, node in nodes.items() for name, child in node.entries.items() if child == ino}


def differences(found: Nodes, expected: Nodes) -> list[str]:
    """The differences of two states, one line for each inode and field."""
    lines: list[str] = []
    for ino in sorted({*found, *expected}):
        one, other = found.get(ino), expected.get(ino)
        if one is None or other is None:
            lines.append(f"inode {ino}: {'missing' if one is None else 'not expected'}: {one or other}")
        elif one != other:
            for name in Node.__slots__:
                if name != "content" and getattr(one, name) != getattr(other, name):
                    lines.append(f"inode {ino}: {name} is {getattr(one, name)!r}, not {getattr(other, name)!r}")
    return lines
