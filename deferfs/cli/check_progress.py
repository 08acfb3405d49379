"""How far a check is: a line on the terminal, or lines for the program that asked, as fsck(8) defines them for `-C`."""

from __future__ import annotations

import os
import sys

from deferfs.check.context import Progress
from deferfs.cli.output import overwrite
from deferfs.errors import UsageError
from deferfs.printable import printable


def progress_to(image: str, fd_text: str | None) -> Progress | None:
    """`-C 0` shows a line on a terminal, `-C N` writes `pass done total device` lines to file descriptor N."""
    if fd_text is None:
        return None
    try:
        fd = int(fd_text)
    except ValueError:
        raise UsageError(f"-C takes the number of a file descriptor, not {fd_text!r}") from None
    if fd > 0:
        return _Lines(fd, image)
    return _Bar(image) if fd == 0 and sys.stderr.isatty() else None


class _Lines:
    """For programs. A program that no longer reads does not end the check."""

    def __init__(self, fd: int, image: str) -> None:
        self.fd = fd
        self.image = image
        self.passes: list[str] = []

    def __call__(self, name: str, done: int, total: int) -> None:
        if name not in self.passes:
            self.passes.append(name)
        line = printable(f"{self.passes.index(name) + 1} {done} {total} {self.image}")
        try:
            os.write(self.fd, f"{line}\n".encode())
        except OSError:
            self.fd = -1


class _Bar:
    """For people: one line, written over again."""

    def __init__(self, image: str) -> None:
        self.image = image

    def __call__(self, name: str, done: int, total: int) -> None:
        share = 100 * done // total if total else 100
        overwrite(f"{self.image}: {name} {share:3d} %", last=done == total)
