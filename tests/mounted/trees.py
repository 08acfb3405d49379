"""Comparing directory trees: everything that a copy with `cp -a` has to keep."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

_KEPT_XATTRS = ("user.", "security.capability", "system.posix_acl_")
"""Others belong to the filesystem or the security module below, and are not copied."""
_CHUNK_BYTES = 1 << 20
_SHOWN_MAX = 10


@dataclass(frozen=True)
class Entry:
    """One name of a tree. `links` are all names of the file below the root; `links_outside` counts the others."""

    kind: int
    mode: int
    owner: tuple[int, int]
    mtime_ns: int
    size: int
    device: int
    content: str
    xattrs: tuple[tuple[str, bytes], ...]
    links: tuple[str, ...]
    links_outside: int


def snapshot(root: Path) -> dict[str, Entry]:
    """Every name below `root` (itself as `.`), relative to it."""
    found = {relative: os.lstat(path) for relative, path in _walk(root)}
    groups: dict[tuple[int, int], list[str]] = defaultdict(list)
    for relative, status in found.items():
        groups[status.st_dev, status.st_ino].append(relative)
    return {
        relative: _entry(root / relative, status, groups[status.st_dev, status.st_ino])
        for relative, status in found.items()
    }


def _walk(root: Path) -> Iterator[tuple[str, Path]]:
    yield ".", root
    for directory, names, files in os.walk(root):
        for name in (*names, *files):
            path = Path(directory, name)
            yield str(path.relative_to(root)), path


def _entry(path: Path, status: os.stat_result, names: list[str]) -> Entry:
    directory = stat.S_ISDIR(status.st_mode)
    expected_links = 2 + sum(entry.is_dir(follow_symlinks=False) for entry in os.scandir(path)) if directory else 0
    return Entry(
        kind=stat.S_IFMT(status.st_mode),
        mode=stat.S_IMODE(status.st_mode),
        owner=(status.st_uid, status.st_gid),
        mtime_ns=status.st_mtime_ns,
        size=0 if directory else status.st_size,
        device=status.st_rdev,
        content=_content(path, status.st_mode),
        xattrs=_xattrs(path),
        links=() if directory else tuple(sorted(names)),
        links_outside=status.st_nlink - (expected_links if directory else len(names)),
    )


def _content(path: Path, mode: int) -> str:
    if stat.S_ISLNK(mode):
        return os.readlink(path)
    if not stat.S_ISREG(mode):
        return ""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while data := file.read(_CHUNK_BYTES):
            digest.update(data)
    return digest.hexdigest()


def _xattrs(path: Path) -> tuple[tuple[str, bytes], ...]:
    names = sorted(os.listxattr(path, follow_symlinks=False))
    return tuple(
        (name, os.getxattr(path, name, follow_symlinks=False)) for name in names if name.startswith(_KEPT_XATTRS)
    )


def differences(source: dict[str, Entry], copy: dict[str, Entry], *, mtimes: bool = True) -> list[str]:
    """What is not the same, a line each. All links of a copied file must be in the copy; the source may have more."""
    lines = [f"{name}: missing" for name in source.keys() - copy.keys()]
    lines += [f"{name}: should not be there" for name in copy.keys() - source.keys()]
    for name in source.keys() & copy.keys():
        wanted = replace(source[name], links_outside=0)
        found = copy[name]
        if not mtimes:
            wanted = replace(wanted, mtime_ns=found.mtime_ns)
        lines += [
            f"{name}: {field} is {getattr(found, field)!r}, not {getattr(wanted, field)!r}"
            for field in Entry.__dataclass_fields__
            if getattr(found, field) != getattr(wanted, field)
        ]
    return sorted(lines)


def assert_same(source: dict[str, Entry], copy: dict[str, Entry], *, mtimes: bool = True) -> None:
    """Fail, with the first few differences."""
    lines = differences(source, copy, mtimes=mtimes)
    assert not lines, "\n".join([f"{len(lines)} differences", *lines[:_SHOWN_MAX]])
