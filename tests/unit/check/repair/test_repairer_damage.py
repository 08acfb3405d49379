"""Repair after random damage: bit flips, runs of bytes, swapped, repeated and cleared blocks; absurd fields under right
checksums.
"""

from __future__ import annotations

import functools
import struct
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deferfs.check import check_image
from deferfs.ondisk.inode import MAGIC
from tests.examples import examples
from tests.unit.check.builder import BLOCK_SIZE, BLOCKS
from tests.unit.check.image import Image, metadata_blocks
from tests.unit.check.numbers import NUMBERS
from tests.unit.check.repair.outcome import (
    repaired,
    require_untouched,
    require_usable,
    sample_bytes,
    sample_metadata,
)
from tests.unit.check.repair.spoiling import spoil_blocks
from tests.unit.check.sample import BIG_ENTRIES, FAR, FIRST_IN_CHUNK_1, sample
from tests.unit.check.workload import Workload

pytestmark = pytest.mark.compiled

EXAMPLES = settings(max_examples=examples(60), deadline=None)
DAMAGES_PER_VOLUME = examples(16)


@EXAMPLES
@given(st.randoms(use_true_random=False))
def test_random_damage(random: Random) -> None:
    image = sample()
    hit = spoil_blocks(image, random, sample_metadata())
    if not check_image(image.device).clean:
        repaired(image)
        require_untouched(image, sample_bytes(), hit)
        require_usable(image)


@functools.cache
def _places() -> list[tuple[int, int]]:
    image = sample()
    inodes = [*range(30), *range(FIRST_IN_CHUNK_1, FIRST_IN_CHUNK_1 + BIG_ENTRIES), FAR]
    return [image.locate(ino) for ino in inodes]


@EXAMPLES
@given(st.data())
def test_random_fields_under_right_checksums(data: st.DataObject) -> None:
    image = sample()
    hit: set[int] = set()
    blocks = [block for block in sample_metadata() if image.raw(block)[4:8] != MAGIC]
    for _ in range(data.draw(st.integers(1, 4))):
        number = struct.pack("<Q", data.draw(NUMBERS))[: data.draw(st.sampled_from([1, 2, 4, 8]))]
        if data.draw(st.booleans()):
            place = data.draw(st.sampled_from(_places()))
            image.patch_record(place, data.draw(st.integers(4, 160)), number)
            hit.add(place[0])
        else:
            block = data.draw(st.sampled_from(blocks))
            image.patch(block, data.draw(st.integers(4, BLOCK_SIZE - 8)), number)
            hit.add(block)
    if not check_image(image.device).clean:
        repaired(image)
        # a record that claims the blocks of others is not seen to be the wrong one: contents survive, by copies
        require_untouched(image, sample_bytes(), hit, exact=False)
        require_usable(image)


@pytest.mark.parametrize("block_size", [1024, 4096, 65536])
def test_random_damage_of_volumes(block_size: int) -> None:
    workload = Workload(block_size + 1, block_size, "deferred")
    for _ in range(200):
        workload.step()
    workload.close()
    original = workload.device.snapshot()
    metadata = metadata_blocks(original)
    for seed in range(DAMAGES_PER_VOLUME):
        image = Image(type(workload.device).from_bytes(original))
        hit = spoil_blocks(image, Random(seed), metadata)
        if not check_image(image.device).clean:
            repaired(image)
            require_untouched(image, original, hit)
            require_usable(image)


def test_the_sample_has_enough_metadata_and_blocks_for_random_damage() -> None:
    assert len(sample_metadata()) > 100
    assert BLOCKS > 7936
