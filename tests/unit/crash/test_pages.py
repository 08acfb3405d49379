"""Images that share pages, and their names."""

from __future__ import annotations

import random

import pytest

from deferfs.crash.pages import Names, PageDevice, patched, split
from deferfs.device import MemoryDevice
from deferfs.errors import DeviceError

PAGE = 512
IMAGE = random.Random(1).randbytes(20 * PAGE)


def test_a_device_on_pages_is_like_one_in_memory() -> None:
    dice = random.Random(2)
    pages = split(IMAGE, PAGE)
    device, plain = PageDevice(pages, {3: bytes(PAGE)}), MemoryDevice.from_bytes(IMAGE)
    plain.write(3 * PAGE, bytes(PAGE))
    for _ in range(300):
        offset = dice.randrange(len(IMAGE))
        length = dice.randrange(min(1500, len(IMAGE) - offset + 1))
        if dice.randrange(2):
            data = dice.randbytes(length)
            device.write(offset, data)
            plain.write(offset, data)
        assert device.read(offset, length) == plain.read(offset, length)
    assert device.image() == plain.snapshot()
    assert device.fork().image() == plain.snapshot()
    assert b"".join(pages) == IMAGE, "the pages themselves are left alone"


def test_a_device_on_pages_has_an_end() -> None:
    device = PageDevice(split(IMAGE, PAGE), {})
    with pytest.raises(DeviceError):
        device.read(len(IMAGE) - 1, 2)
    with pytest.raises(DeviceError):
        device.write(len(IMAGE), b"x")


def test_reads_notes_what_was_read_before_it_was_written() -> None:
    device = PageDevice(split(IMAGE, PAGE), {})
    device.reads = {}
    device.write(2 * PAGE, bytes(PAGE))
    device.read(PAGE, 3 * PAGE)
    assert device.reads == {1: IMAGE[PAGE : 2 * PAGE], 3: IMAGE[3 * PAGE : 4 * PAGE]}


def test_equal_images_have_equal_names() -> None:
    """However they came about: as a patch, or as a base."""
    pages = split(IMAGE, PAGE)
    names = Names(pages.copy(), frozenset({5}))
    one, other = {2: b"a" * PAGE, 5: b"b" * PAGE}, {7: b"c" * PAGE}
    whole, interesting = names.of({**one, **other})
    assert names.of(other)[1] == names.interesting != interesting
    names.advance(one)
    assert names.of(other) == (whole, interesting)
    names.advance(other)
    assert (names.image, names.interesting) == (whole, interesting)
    fresh = Names(patched(pages, {**one, **other}), frozenset({5}))
    assert (fresh.image, fresh.interesting) == (whole, interesting)
    assert names.of({2: pages[2]})[0] != names.image
