"""Makes the golden images of the present on-disk format: run it once for each release that changes the format.

    python -m tests.golden.build tests/golden/images/VERSION

Each image has every structure that the format knows (see `tree.py`), and beside it a listing of what must be read from
it. They are made without a clock and without chance, so that the same program makes the same bytes. An image that has
been released is never made again: it stands for what is on the disks of users.
"""

from __future__ import annotations

import itertools
import lzma
import sys
from pathlib import Path
from typing import Final, NamedTuple

from deferfs.device import MemoryDevice
from deferfs.limits import KIB, MIB
from deferfs.store import make_filesystem, plan_geometry, run_job
from deferfs.volume import Driver
from tests.golden.listing import dumped, listing_of
from tests.golden.tree import grow_tree, leave_work

CREATED_NS: Final = 1_700_000_000_000_000_000
LOG_BLOCKS: Final = 256


class Recipe(NamedTuple):
    """One image: `clean` as an unmount leaves it, else as a crash does, with a log to replay."""

    block_size: int
    size: int
    clean: bool


RECIPES: Final = {
    "1k-crashed": Recipe(KIB, 10 * MIB, clean=False),
    "4k-clean": Recipe(4 * KIB, 12 * MIB, clean=True),
    "64k-crashed": Recipe(64 * KIB, 48 * MIB, clean=False),
}


def open_golden(device: MemoryDevice) -> Driver:
    """Open and recover an image; times and generations are counted, so that they are the same each time."""
    return Driver.open(
        device,
        clock=itertools.count(CREATED_NS + 10**15, 10**9).__next__,
        entropy=itertools.count(1_000_000).__next__,
    )


def build(recipe: Recipe) -> bytes:
    """The image that a recipe makes."""
    geometry = plan_geometry(
        recipe.size,
        block_size=recipe.block_size,
        uuid=bytes(range(16)),
        hash_key=bytes(range(16, 32)),
        now_ns=CREATED_NS,
        journal_bytes=LOG_BLOCKS * recipe.block_size,
        label=b"golden",
    )
    device = MemoryDevice(recipe.size)
    run_job(device, make_filesystem(geometry))
    clock, entropy = itertools.count(CREATED_NS, 10**9).__next__, itertools.count(1).__next__
    driver = Driver.open(device, clock=clock, entropy=entropy)
    grow_tree(driver)
    driver.commit()
    driver.checkpoint()
    leave_work(driver)
    driver.commit()
    image = device.snapshot()
    held = listing_of(driver)
    if recipe.clean:
        driver.close()
        image = device.snapshot()
    read = listing_of(open_golden(MemoryDevice.from_bytes(image)))
    assert all(read[part] == held[part] for part in ("inodes", "directories")), "what is read is not what was written"
    return image


def main(directory: Path) -> None:
    """Write the images, compressed, and their listings."""
    directory.mkdir(parents=True)
    for name, recipe in RECIPES.items():
        image = build(recipe)
        Path(directory, f"{name}.img.xz").write_bytes(lzma.compress(image, preset=9 | lzma.PRESET_EXTREME))
        listing = listing_of(open_golden(MemoryDevice.from_bytes(image)))
        Path(directory, f"{name}.json").write_text(dumped(listing))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
