"""The entry points of the installed programs. Nothing is imported here: Ctrl-C while modules are loaded, which takes a
good part of a second, ends as it does later."""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> NoReturn:
    """`deferfs`."""
    _start("main", 8 if sys.argv[1:2] == ["mount"] else 32 if sys.argv[1:2] == ["fsck"] else 130)


def mkfs_main() -> NoReturn:
    """`mkfs.deferfs`."""
    _start("mkfs_main", 130)


def fsck_main() -> NoReturn:
    """`fsck.deferfs`."""
    _start("fsck_main", 32)


def mount_main() -> NoReturn:
    """`mount.deferfs`."""
    _start("mount_main", 8)


def _start(name: str, interrupted: int) -> NoReturn:
    """Run a program of `main`. `interrupted` is the exit code that its conventions have for that."""
    try:
        import importlib

        from deferfs.cli.standard_streams import open_closed_ones

        open_closed_ones()
        getattr(importlib.import_module("deferfs.cli.main"), name)()
        raise AssertionError(f"{name} has returned")
    except KeyboardInterrupt:
        sys.stderr.write("deferfs: interrupted\n")
        sys.exit(interrupted)
