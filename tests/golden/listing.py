"""What is read from a mounted volume: names, attributes, contents. In JSON, so that it can be stored and compared."""

from __future__ import annotations

import base64
import hashlib
import json
import stat
from typing import Any, Final

from deferfs.ondisk.inode import ROOT_INO, Inode
from deferfs.store import Plan
from deferfs.volume import Driver, attributes, files, namespace, xattrs

Listing = dict[str, Any]
SHOWN_BYTES_MAX: Final = 100
READ_BYTES_MAX: Final = 1 << 22
END_BYTES: Final = 4096
"""Of a file that is longer (sparse, up to a terabyte) the beginning and the end."""


def listing_of(driver: Driver) -> Listing:
    """Every inode that has a name, by number; every directory with its names in the order of their offsets; statfs."""
    directories: Listing = {}
    inodes: Listing = {}
    waiting = [ROOT_INO]
    while waiting:
        ino = waiting.pop()
        if str(ino) in inodes:
            continue
        record = driver.run(attributes.getattr, driver.volume, ino)
        inodes[str(ino)] = _attributes(driver, record)
        if stat.S_ISDIR(record.mode):
            entries = driver.run(_entries, driver, ino)
            directories[str(ino)] = [[offset, name, number, kind] for offset, name, number, kind in entries]
            waiting.extend(number for _, _, number, _ in entries)
    # what is still to be cleaned up counts as free
    return {"directories": directories, "inodes": inodes, "statfs": list(attributes.statfs(driver.volume))}


def dumped(listing: Listing) -> str:
    """As JSON with a line for each inode and for each name, so that a difference can be read."""
    inodes = ",\n".join(f'  "{ino}": {json.dumps(found)}' for ino, found in listing["inodes"].items())
    directories = ",\n".join(
        f'  "{ino}": [\n' + ",\n".join(f"   {json.dumps(entry)}" for entry in entries) + "\n  ]"
        for ino, entries in listing["directories"].items()
    )
    return (
        f'{{"statfs": {json.dumps(listing["statfs"])},\n'
        f' "inodes": {{\n{inodes}}},\n "directories": {{\n{directories}}}}}\n'
    )


def without_offsets(listing: Listing) -> Listing:
    """The same, but for the readdir offsets, and so the order of names."""
    directories = {ino: sorted(entry[1:] for entry in entries) for ino, entries in listing["directories"].items()}
    return {**listing, "directories": directories}


def _entries(plan: Plan, driver: Driver, ino: int) -> list[tuple[int, str, int, int]]:
    return [
        (entry.key, text_shown(entry.name), entry.ino, entry.file_type)
        for entry in namespace.readdir(plan, driver.volume, ino, 0)
    ]


def _attributes(driver: Driver, record: Inode) -> Listing:
    volume, ino = driver.volume, record.ino
    found: Listing = {
        name: getattr(record, name)
        for name in ("mode", "uid", "gid", "nlink", "size", "generation", "rdev", "atime", "mtime", "ctime", "crtime")
    }
    found["xattrs"] = {
        text_shown(name): bytes_shown(driver.run(xattrs.getxattr, volume, ino, name))
        for name in driver.run(xattrs.listxattr, volume, ino)
    }
    if stat.S_ISLNK(record.mode):
        found["target"] = bytes_shown(driver.readlink(ino))
    elif stat.S_ISREG(record.mode):
        if record.size <= READ_BYTES_MAX:
            found["content"] = bytes_shown(driver.read(ino, 0, record.size))
        else:
            found["begins"] = bytes_shown(driver.read(ino, 0, END_BYTES))
            found["ends"] = bytes_shown(driver.read(ino, record.size - END_BYTES, END_BYTES))
        found["data"] = driver.run(_data, driver, record)
    return found


def _data(plan: Plan, driver: Driver, record: Inode) -> list[list[int]]:
    """The pieces that hold data, [offset, length] in bytes; the rest are holes, or blocks that were never written."""
    found: list[list[int]] = []
    at = 0
    plan_of_read = files.read(plan, driver.volume, record.ino, 0, record.size)
    for piece in plan_of_read.pieces:
        if piece.offset is not None:
            if found and sum(found[-1]) == at:
                found[-1][1] += piece.length
            else:
                found.append([at, piece.length])
        at += piece.length
    return found


def text_shown(name: bytes) -> str:
    """A name: what is not UTF-8 is escaped, what is long has its digest."""
    text = name.decode("utf-8", "backslashreplace")
    return text if len(name) <= SHOWN_BYTES_MAX else f"{text[:10]}... {bytes_shown(name)}"


def bytes_shown(value: bytes) -> str:
    """Short values as they are, others by their digest."""
    if len(value) <= SHOWN_BYTES_MAX:
        return "base64 " + base64.b64encode(value).decode() if not value.isascii() or b"\0" in value else value.decode()
    return f"sha256 {hashlib.sha256(value).hexdigest()} of {len(value)} bytes"
