"""The big tree of cold files: more of them than a memory cgroup can hold dentries for.

The path of file `index` follows from its number, so that no process has to remember or list anything.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

FILES_PER_DIRECTORY: Final = 200
CONTENT_EVERY: Final = 8
"""Each eighth file has content, the others are empty."""
CONTENT: Final = bytes(range(250)) * 4


def tree_path(root: str, index: int) -> str:
    """The path of file `index` below `root`."""
    return f"{root}/tree/{index // FILES_PER_DIRECTORY:04d}/{index % FILES_PER_DIRECTORY:03d}"


def make_tree(root: Path, files: int) -> None:
    """Make the tree of `files` files in `root`, where nothing of it exists yet."""
    (root / "tree").mkdir()
    for index in range(files):
        if index % FILES_PER_DIRECTORY == 0:
            (root / "tree" / f"{index // FILES_PER_DIRECTORY:04d}").mkdir()
        path = tree_path(str(root), index)
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        if index % CONTENT_EVERY == 0:
            os.write(descriptor, CONTENT)
        os.close(descriptor)


def walk_tree(root: str) -> int:
    """List every directory of the tree, which brings its entries into the kernel's cache; returns their number."""
    entries = 0
    with os.scandir(f"{root}/tree") as directories:
        for directory in directories:
            with os.scandir(directory.path) as files:
                for entry in files:
                    entry.stat(follow_symlinks=False)
                    entries += 1
    return entries
