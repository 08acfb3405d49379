"""Make, append to, overwrite and rename files for ever; note what was made durable.

    fsync_writer.py DIRECTORY NOTES

Each line of NOTES, a file elsewhere, is `NAME LENGTH DIGEST`: that this file was fsynced with this content (and its
name by an fsync of the directory). Only the last line of a name counts, and a file is not changed after it was noted
without the line `NAME changing` before.
"""

import hashlib
import itertools
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path


def main(directory: Path, notes: Path) -> None:
    random.seed(1)
    directory.mkdir(exist_ok=True)
    parent = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(parent)
    with notes.open("a", buffering=1) as noted:
        for number in itertools.count():
            name = f"file{number}"
            content = bytearray(random.randbytes(random.choice([10, 300, 4096, 5000, 70_000])))
            descriptor = os.open(directory / name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
            write(descriptor, content, 0)
            os.fsync(descriptor)
            if number % 3 == 0:
                os.rename(directory / name, directory / f"renamed{number}")
                name = f"renamed{number}"
            os.fsync(parent)
            note(noted.write, name, content)
            if number % 2:
                noted.write(f"{name} changing\n")
                change(descriptor, content)
                os.fsync(descriptor)
                note(noted.write, name, content)
            os.close(descriptor)


def write(descriptor: int, data: bytes | bytearray, offset: int) -> None:
    assert os.pwrite(descriptor, data, offset) == len(data)


def change(descriptor: int, content: bytearray) -> None:
    """Overwrite in the middle, cut or append."""
    kind = random.choice(["overwrite", "cut", "append"])
    at = random.randrange(len(content))
    if kind == "cut":
        os.ftruncate(descriptor, at)
        del content[at:]
        return
    data = random.randbytes(random.choice([7, 4096, 9999]))
    if kind == "append":
        at = len(content)
    write(descriptor, data, at)
    content[at : at + len(data)] = data


def note(to: Callable[[str], int], name: str, content: bytearray) -> None:
    to(f"{name} {len(content)} {hashlib.sha256(content).hexdigest()}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
