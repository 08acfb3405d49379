"""What the debug tools share: getting hold of an image or its past, and how they print."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from deferfs.check.view import View
from deferfs.cli.output import json_path, tell
from deferfs.device import Device, FileDevice
from deferfs.errors import ImageError
from deferfs.mount.daemon.image import open_image
from deferfs.ondisk.inode import Inode
from deferfs.store.past import past_device

F = TypeVar("F", bound=Callable[..., Any])
_NS = 1_000_000_000

at_option = click.option("--at", "tid", type=int, metavar="TID", help="As it was after this transaction of the log.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_TYPES = {1: "fifo", 2: "character device", 4: "directory", 6: "block device", 8: "file", 10: "symlink", 12: "socket"}


@contextmanager
def opened(image: str) -> Iterator[FileDevice]:
    """The image, for reading. ImageError, ImageInUseError."""
    device = open_image(image, writable=False, notice=tell)
    try:
        yield device
    finally:
        device.close()


@contextmanager
def viewed(image: str, tid: int | None) -> Iterator[View]:
    """The image, or what it was after a transaction; what was found to be wrong is printed at the end."""
    with opened(image) as file:
        device: Device = file if tid is None else past_device(file, tid)
        view = View(device)
        try:
            yield view
        except BrokenPipeError:
            raise  # the reader of our output has closed it
        except OSError as error:
            raise ImageError(f"{image}: {error.strerror or error}") from error
        for problem in view.problems:
            tell(f"{image}: [{problem.number}] {problem.message}")


def type_name(file_type: int) -> str:
    """In words; `file_type` is the type bits of a mode shifted right by 12."""
    return _TYPES.get(file_type, f"type {file_type}")


def time_text(ns: int) -> str:
    """A time in ns since the epoch, as people read it, to the nanosecond; as a number when no calendar has it."""
    try:
        moment = datetime.fromtimestamp(ns // _NS, UTC)
    except (ValueError, OverflowError, OSError):
        return str(ns)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{ns % _NS:09d}"


def name_json(name: bytes) -> dict[str, str]:
    """A name for JSON: as text with `?` for what is not UTF-8, and exactly."""
    return json_path("name", os.fsdecode(name))


def inode_words(inode: Inode) -> str:
    """An inode in a few words."""
    if not inode.mode:
        return f"inode {inode.ino}: free, generation {inode.generation}"
    unit = "entries" if stat.S_ISDIR(inode.mode) else "bytes"
    return f"inode {inode.ino}: {type_name(stat.S_IFMT(inode.mode) >> 12)}, {inode.size} {unit}"
