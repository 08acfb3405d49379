"""Images of every released on-disk format are read, recovered, checked, repaired, converted and written as ever.

docs/compatibility.md says what is promised. `build.py` made the images; what must be read is stored beside them.
"""

from __future__ import annotations

import functools
import json
import lzma
from pathlib import Path
from typing import Final

import pytest

from deferfs.check import check_image
from deferfs.check.catalogue import INODE_QUARANTINED
from deferfs.check.repair import recover_log, repair_image
from deferfs.device import MemoryDevice
from deferfs.ondisk import superblock as format_of_superblock
from deferfs.store import read_superblock, run_job
from tests.golden.build import RECIPES, build, open_golden
from tests.golden.listing import Listing, listing_of, without_offsets
from tests.golden.structures import CHAINS, WANTED, structures
from tests.unit.volumes import make_file, settle

IMAGES: Final = Path(__file__).parent / "images"
NOW_NS: Final = 1_800_000_000_000_000_000
GOLDEN: Final = sorted(str(path.relative_to(IMAGES)).removesuffix(".img.xz") for path in IMAGES.glob("*/*.img.xz"))

every_image = pytest.mark.parametrize("name", GOLDEN)


@functools.cache
def image_of(name: str) -> bytes:
    return lzma.decompress((IMAGES / f"{name}.img.xz").read_bytes())


@functools.cache
def listing_stored(name: str) -> Listing:
    found: Listing = json.loads((IMAGES / f"{name}.json").read_text())
    return found


def device_of(name: str) -> MemoryDevice:
    return MemoryDevice.from_bytes(image_of(name))


def tree_of(listing: Listing) -> Listing:
    return {part: listing[part] for part in ("inodes", "directories")}


def numbers_found(device: MemoryDevice) -> set[int]:
    report = check_image(device)
    assert report.complete
    return {problem.number for problem in report.problems}


@every_image
def test_golden_image_reads_as_listed(name: str) -> None:
    """The log is replayed, the rest is where it was; what waits for cleanup counts as free."""
    assert listing_of(open_golden(device_of(name))) == listing_stored(name)


@every_image
def test_golden_image_is_sound_to_fsck(name: str) -> None:
    report = check_image(device_of(name))
    assert report.complete
    assert {problem.number for problem in report.problems} <= {INODE_QUARANTINED.number}
    assert report.counts.orphans
    assert bool(report.counts.transactions) == name.endswith("crashed")
    assert report.counts.wide_directories == 2


@every_image
def test_golden_image_recovered_by_fsck_reads_as_listed(name: str) -> None:
    device = device_of(name)
    recover_log(device, NOW_NS)
    assert check_image(device).counts.transactions == 0
    assert listing_of(open_golden(device)) == listing_stored(name)


@every_image
def test_golden_image_repaired_by_fsck_has_lost_nothing(name: str) -> None:
    device = device_of(name)
    repaired = repair_image(device, NOW_NS)
    assert repaired.exact, repaired.actions
    assert numbers_found(device) == set()
    assert tree_of(listing_of(open_golden(device))) == tree_of(listing_stored(name))


@every_image
def test_golden_image_converted_to_31_bit_offsets_keeps_every_name(name: str) -> None:
    device = device_of(name)
    repair_image(device, NOW_NS, narrow=True)
    assert numbers_found(device) == set()
    assert check_image(device).counts.wide_directories == 0
    found, stored = listing_of(open_golden(device)), listing_stored(name)
    assert without_offsets(tree_of(found)) == without_offsets(tree_of(stored))
    assert found != stored


@every_image
def test_golden_image_is_written_and_cleaned_up(name: str) -> None:
    """A new file, and every deletion that was under way brought to its end, but what is in quarantine."""
    device = device_of(name)
    driver = open_golden(device)
    free = driver.volume.store.space.free_blocks
    ino = make_file(driver, b"new", b"written by a later version\n" * 1000)
    settle(driver)
    assert driver.volume.store.space.free_blocks > free - 100
    driver.close()
    assert numbers_found(device) <= {INODE_QUARANTINED.number}
    found = tree_of(listing_of(open_golden(device)))
    assert found["inodes"].pop(str(ino))["size"] == 27000
    stored = tree_of(listing_stored(name))
    names = {ino: [entry[1] for entry in entries] for ino, entries in found["directories"].items()}
    names["1"].remove("new")
    assert names == {ino: [entry[1] for entry in entries] for ino, entries in stored["directories"].items()}
    for root in (found["inodes"].pop("1"), stored["inodes"].pop("1")):
        assert root["nlink"] == 11
    assert found["inodes"] == stored["inodes"]


@every_image
def test_golden_image_has_every_structure(name: str) -> None:
    image = image_of(name)
    superblock = run_job(MemoryDevice.from_bytes(image), read_superblock(len(image)))
    found = structures(image, superblock.block_size)
    assert found >= (WANTED | CHAINS if name.split("/")[1].startswith("1k") else WANTED)


def test_golden_images_are_of_every_feature_that_this_program_knows() -> None:
    """A change of the format that sets a new feature flag, or counts up the version, brings images of its own."""
    made = {run_job(device_of(name), read_superblock(len(image_of(name)))) for name in GOLDEN}
    known = format_of_superblock
    assert max(superblock.incompatible for superblock in made) == known.FEATURES_INCOMPATIBLE
    assert max(superblock.read_only_compatible for superblock in made) == known.FEATURES_READ_ONLY
    assert max(superblock.compatible for superblock in made) == known.COMPATIBLE_SPARES
    assert len(GOLDEN) >= len(RECIPES)


def test_golden_build_script_still_makes_such_images() -> None:
    """Those of the next format come from it. (It compares what is read with what was written.)"""
    recipe = RECIPES["1k-crashed"]
    image = build(recipe)
    assert structures(image, recipe.block_size) >= WANTED | CHAINS
    assert numbers_found(MemoryDevice.from_bytes(image)) == {INODE_QUARANTINED.number}
