"""The work of the processes of a soak, all at once: each family of operations on its own files, which it removes.

A round takes a few seconds at most, so that a soak of any length ends soon after it is told to. Results are checked
where that is cheap: contents, sizes, names.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

BLOCK: Final = 4096
TREE_FILES: Final = 60
HELD_FILES: Final = 40
FRAGMENTS: Final = 400
LIST_ENTRIES: Final = 150
STANDING_DIRECTORIES: Final = 20
VISITS: Final = 300


def work_in_trees(home: Path, draw: random.Random) -> None:
    """Create, append, link, rename and unlink in directories below each other."""
    inner = home / "a" / "b"
    inner.mkdir(parents=True)
    for number in range(TREE_FILES):
        path = home / "a" / f"{number}"
        content = draw.randbytes(draw.choice((0, 100, 3000, 20_000)))
        path.write_bytes(content)
        with path.open("ab") as file:
            file.write(b"tail")
        os.link(path, home / f"link{number}")
        path.rename(inner / f"moved{number}")
        assert (home / f"link{number}").read_bytes() == content + b"tail"
        if number % 3:
            (inner / f"moved{number}").unlink()
    shutil.rmtree(home / "a")
    for number in range(TREE_FILES):
        (home / f"link{number}").unlink()


def hold_deleted(home: Path, draw: random.Random) -> None:
    """Delete files while they are open, and go on using them for a while."""
    held = []
    try:
        for number in range(HELD_FILES):
            path = home / f"held{number}"
            held.append(os.open(path, os.O_CREAT | os.O_RDWR))
            os.pwrite(held[-1], bytes([number]) * BLOCK * draw.randint(1, 8), 0)
            path.unlink()
        for number in draw.sample(range(HELD_FILES), HELD_FILES):
            assert os.pread(held[number], 1, BLOCK // 2) == bytes([number])
            os.pwrite(held[number], b"more", 64 * BLOCK)
    finally:
        for descriptor in held:
            os.close(descriptor)


def cut_fragments(home: Path, draw: random.Random) -> None:
    """A file of very many extents, cut in the middle, written again and deleted."""
    path = home / "fragments"
    with path.open("w+b", buffering=0) as file:
        for number in draw.sample(range(FRAGMENTS), FRAGMENTS):
            os.pwrite(file.fileno(), b"f" * BLOCK, 2 * number * BLOCK)
        os.fsync(file.fileno())
        file.truncate(FRAGMENTS * BLOCK + 100)
        assert os.fstat(file.fileno()).st_size == FRAGMENTS * BLOCK + 100
        os.pwrite(file.fileno(), b"end", 2 * FRAGMENTS * BLOCK)
    path.unlink()


def set_attributes(home: Path, draw: random.Random) -> None:
    """Extended attributes, small and in blocks of their own."""
    path = home / "attributes"
    path.touch()
    for number in range(20):
        value = draw.randbytes(draw.choice((10, 500, 5000)))
        os.setxattr(path, f"user.{number % 4}", value)
        assert os.getxattr(path, f"user.{number % 4}") == value
    os.removexattr(path, "user.1")
    path.unlink()


def map_memory(home: Path, draw: random.Random) -> None:
    """Write through a shared mapping, read through the file."""
    path = home / "mapped"
    with path.open("w+b") as file:
        file.truncate(64 * BLOCK)
        with mmap.mmap(file.fileno(), 64 * BLOCK) as memory:
            for _ in range(50):
                memory[draw.randrange(64 * BLOCK)] = 1
            memory.flush()
            assert bytes(memory) == path.read_bytes()
    path.unlink()


def change_directory(home: Path, draw: random.Random) -> None:
    """List a directory while entries come and go: those that stay are seen once each."""
    directory = home / "listed"
    directory.mkdir()
    stay = {f"stay{number}" for number in range(LIST_ENTRIES)}
    for name in stay:
        (directory / name).touch()
    seen = []
    with os.scandir(directory) as entries:
        for number, entry in enumerate(entries):
            seen.append(entry.name)
            (directory / f"come{number}").touch()
            with contextlib.suppress(FileNotFoundError):
                (directory / f"come{draw.randrange(number + 1)}").unlink()
            if number > 4 * LIST_ENTRIES:
                break
    found = [name for name in seen if name in stay]
    assert len(found) == len(set(found)), "an entry was listed twice"
    shutil.rmtree(directory)


def make_standing(home: Path, count: int) -> None:
    """A tree of `count` files that stays as long as the process does: its inodes fill the memory budget."""
    for number in range(STANDING_DIRECTORIES):
        (home / "standing" / f"{number}").mkdir(parents=True)
    for number in range(count):
        path = standing_file(home, number)
        path.write_bytes(standing_content(path))


def standing_file(home: Path, number: int) -> Path:
    """The path of a file that stays."""
    return home / "standing" / f"{number % STANDING_DIRECTORIES}" / f"{number}"


def standing_content(path: Path) -> bytes:
    """Some fit into the inode, most do not."""
    return path.name.encode() * (50 if len(path.name) % 2 else 1500)


def visit_standing(home: Path, draw: random.Random) -> None:
    """Look up, read and replace files all over the standing tree."""
    directories = [home / "standing" / f"{number}" for number in range(STANDING_DIRECTORIES)]
    names = os.listdir(draw.choice(directories))
    for name in draw.choices(names, k=VISITS if names else 0):
        path = standing_file(home, int(name))
        os.stat(path)
        match draw.randrange(10):
            case 0:
                new = home / "new"
                new.write_bytes(standing_content(path))
                new.rename(path)
            case 1:
                path.chmod(draw.choice((0o600, 0o644)))
            case 2 | 3:
                assert path.read_bytes() == standing_content(path)


FAMILIES: Final[tuple[Callable[[Path, random.Random], None], ...]] = (
    work_in_trees,
    hold_deleted,
    cut_fragments,
    set_attributes,
    map_memory,
    change_directory,
    visit_standing,
    visit_standing,
)


def work_until(stopped: Callable[[], bool], home: Path, seed: int, standing: int) -> int:
    """Run rounds of families in random order below `home`, which is made here and removed in the end, with `standing`
    permanent files; returns the number of rounds."""
    draw = random.Random(seed)
    home.mkdir()
    make_standing(home, standing)
    rounds = 0
    while not stopped():
        draw.choice(FAMILIES)(home, draw)
        rounds += 1
    shutil.rmtree(home / "standing")
    home.rmdir()
    return rounds
