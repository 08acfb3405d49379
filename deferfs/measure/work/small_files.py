"""The rows of the comparison: common operations on many small files, one kind each.

Every row works on the state left by the rows before it. Before each row everything is synced; before a row that reads,
the kernel's caches are dropped, so that the filesystem itself has to answer.
"""

from __future__ import annotations

import io
import os
import random
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from deferfs.measure.mounts.syncing import sync_filesystem

CONTENT: Final = random.Random(1).randbytes(4096)
TAR_SEED: Final = 4
TAR_SIZES: Final = (0, 200, 900, 2_000, 4_000, 9_000, 30_000)
"""Bytes of the files of the archive: small ones, as in a source tree."""
FILES_PER_DIRECTORY: Final = 100
DROP_NAMES, DROP_ALL = "2", "3"


class Row(msgspec.Struct, frozen=True):
    """`work` does the operation `count` times; `drop` says which caches of the kernel are dropped before."""

    name: str
    work: Callable[[Path, int], object]
    drop: str = ""


def create_empty(root: Path, count: int) -> None:
    """open(O_CREAT), close."""
    directory = f"{root}/empty"
    os.mkdir(directory)
    for index in range(count):
        os.close(os.open(f"{directory}/{index}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))


def create_small(root: Path, count: int) -> None:
    """open(O_CREAT), write 4 KiB, close."""
    directory = f"{root}/small"
    os.mkdir(directory)
    for index in range(count):
        descriptor = os.open(f"{directory}/{index}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        os.write(descriptor, CONTENT)
        os.close(descriptor)


def stat_files(root: Path, count: int) -> None:
    """stat of each by its name."""
    for index in range(count):
        os.stat(f"{root}/small/{index}")


def walk(root: Path, count: int) -> None:
    """scandir, and stat of each entry."""
    for directory in ("empty", "small"):
        with os.scandir(root / directory) as entries:
            for entry in entries:
                entry.stat(follow_symlinks=False)


def read_small(root: Path, count: int) -> None:
    """open, read all, close."""
    for index in range(count):
        descriptor = os.open(f"{root}/small/{index}", os.O_RDONLY)
        assert os.read(descriptor, 8192) == CONTENT
        os.close(descriptor)


def rename(root: Path, count: int) -> None:
    """Into another directory."""
    os.mkdir(root / "renamed")
    for index in range(count):
        os.rename(f"{root}/small/{index}", f"{root}/renamed/{index}")


def delete(root: Path, count: int) -> None:
    """unlink of each."""
    for index in range(count):
        os.unlink(f"{root}/renamed/{index}")


def untar(root: Path, count: int) -> None:
    """tar -x of small files."""
    (root / "untar").mkdir()
    archive = make_archive(count)
    subprocess.run(["tar", "-xf", "-", "-C", str(root / "untar")], input=archive, check=True)


def remove_tree(root: Path, count: int) -> None:
    """rm -rf of what tar made."""
    subprocess.run(["rm", "-rf", str(root / "untar")], check=True)


ROWS: Final = (
    Row("create empty", create_empty),
    Row("create, write 4 KiB", create_small),
    Row("stat", stat_files, DROP_NAMES),
    Row("list and stat", walk, DROP_NAMES),
    Row("read 4 KiB", read_small, DROP_ALL),
    Row("rename", rename, DROP_NAMES),
    Row("delete", delete),
    Row("untar", untar),
    Row("rm -rf", remove_tree),
)


def make_archive(count: int) -> bytes:
    """A tar archive of `count` files in directories, the same each time."""
    choose = random.Random(TAR_SEED)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for index in range(count):
            directory = f"pkg/sub{index // FILES_PER_DIRECTORY:03d}"
            if index % FILES_PER_DIRECTORY == 0:
                entry = tarfile.TarInfo(directory)
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(entry)
            entry = tarfile.TarInfo(f"{directory}/file{index:05d}.py")
            entry.size, entry.mtime = choose.choice(TAR_SIZES), 1_700_000_000 + index
            archive.addfile(entry, io.BytesIO(choose.randbytes(entry.size)))
    return buffer.getvalue()


def time_row(row: Row, root: Path, count: int) -> float:
    """Seconds of `row` on `root`."""
    sync_filesystem(root)
    if row.drop:
        Path("/proc/sys/vm/drop_caches").write_text(row.drop)
    start = time.monotonic()
    row.work(root, count)
    return time.monotonic() - start
