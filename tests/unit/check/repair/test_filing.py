"""Keys of a directory that is rebuilt, and directories of 55-bit hashes that get 31-bit keys."""

from __future__ import annotations

import functools
import stat
from array import array
from random import Random

import pytest

from deferfs.check import check_image
from deferfs.check.repair import names as names_module
from deferfs.check.repair import repair_image
from deferfs.check.repair.context import RepairLog
from deferfs.check.repair.filing import Filing
from deferfs.check.repair.inodefile import find_inode_table
from deferfs.check.table import InodeTable
from deferfs.check.view import View
from deferfs.crash.states import CrashStates, Shredded
from deferfs.device import MemoryDevice, RecordingDevice
from deferfs.limits import DIRECTORY_WINDOW, MIB
from deferfs.ondisk.directory import COOKIE_DOTDOT, pack_entry
from deferfs.ondisk.inode import FLAG_KEYS31, ROOT_INO
from deferfs.ondisk.superblock import FEATURE_KEYS31
from deferfs.store.plan import Plan
from deferfs.volume import namespace
from tests.examples import examples
from tests.unit.check.damage.every import CASES
from tests.unit.check.image import Image
from tests.unit.check.repair.contexts import repair_of
from tests.unit.check.repair.outcome import NOW, repaired, require_clean
from tests.unit.check.repair.survey import open_copy, survey
from tests.unit.check.sample import BIG, FILES, SMALL, sample
from tests.unit.volumes import DIRECTORY, fresh_device, make, open_driver

pytestmark = pytest.mark.compiled

Entry = tuple[int, bytes]
NAMES = [b"a name of a file, number %d" % number for number in range(900)]


def filed(kept: list[Entry], others: list[Entry]) -> tuple[dict[str, int], list[str], int]:
    """(name -> key, what was said, inodes named) of what comes of the entries."""
    repair, repair_log, targets = repair_of(sample()), RepairLog(), array("Q")
    repair.note = repair_log.note
    file = find_inode_table(repair)
    assert file is not None
    repair.table = InodeTable(repair.fmt, file)
    found = list(Filing(repair, BIG, targets).entries(iter(kept), others))
    keys = [key for key, _ in found]
    assert keys == sorted(set(keys))
    return {value[9:].decode(): key for key, value in found}, repair_log.texts, len(targets)


def entry(key: int, name: str) -> Entry:
    return key, pack_entry(SMALL, 8, name.encode())


def test_entries_that_stay_keep_their_keys_and_others_come_between_them() -> None:
    kept = [entry(300, "a"), entry(301, "b"), entry(303, "c"), entry(400, "d")]
    others = [entry(298, "e"), entry(300, "f"), entry(300, "g"), entry(301, "h"), entry(500, "i")]
    found, said, count = filed(kept, others)
    assert found == {"a": 300, "b": 301, "c": 303, "d": 400, "e": 298, "f": 302, "g": 304, "h": 305, "i": 500}
    assert (said, count) == ([], 9)


def test_a_name_whose_window_is_full_is_left_out() -> None:
    kept = [entry(300 + number, f"k{number}") for number in range(DIRECTORY_WINDOW)]
    found, said, count = filed(kept, [entry(300, "x"), entry(301, "y"), entry(302, "z")])
    assert "x" not in found
    assert (found["y"], found["z"]) == (300 + DIRECTORY_WINDOW, 301 + DIRECTORY_WINDOW)
    assert said == [f"directory {BIG}: 'x' removed: no key is free for it"]
    assert count == DIRECTORY_WINDOW + 2


def test_the_second_entry_of_one_name_is_left_out() -> None:
    found, said, count = filed([entry(300, "a"), entry(310, "b")], [entry(299, "b"), entry(300, "a")])
    assert found == {"a": 300, "b": 299}
    assert said == [f"directory {BIG}: '{name}' removed: it is there already" for name in ("a", "b")]
    assert count == 2


# --- conversion ---


@functools.cache
def old_volume() -> bytes:
    """Directories inline, in one leaf and in three levels, as versions without 31-bit keys made them."""
    driver = open_driver(fresh_device(12 * MIB, keys31=False))
    large = make(driver, b"large", DIRECTORY)
    small = make(driver, b"small", DIRECTORY, make(driver, b"middle", DIRECTORY))
    for name in NAMES:
        make(driver, name * 8, parent=large)
    for number in range(20):
        make(driver, b"%d" % number, DIRECTORY, small)
    driver.close()
    return driver.device.read(0, driver.device.size)


def old_image() -> Image:
    return Image(MemoryDevice.from_bytes(old_volume()))


def offsets(image: bytes) -> list[int]:
    """Of all entries below the root."""
    driver = open_copy(image)
    found: list[int] = []

    def op(plan: Plan, ino: int) -> list[int]:
        entries = list(namespace.readdir(plan, driver.volume, ino, COOKIE_DOTDOT))
        found.extend(entry.key for entry in entries)
        return [entry.ino for entry in entries if entry.file_type == 4]

    todo = [ROOT_INO]
    while todo:
        todo += driver.run(op, todo.pop())
    return found


def test_an_old_image_is_clean_and_stays_as_it_is() -> None:
    image = old_image()
    report = check_image(image.device)
    require_clean(report)
    assert report.counts.wide_directories == report.counts.directories == 24
    repaired(image)
    assert not image.superblock.incompatible
    assert check_image(image.device).counts.wide_directories == 24


def test_every_name_is_there_under_a_small_offset_after_a_conversion() -> None:
    image = old_image()
    before = offsets(old_volume())
    outcome = repair_image(image.device, NOW, narrow=True)
    assert outcome.actions == ("24 directories have readdir offsets of 31 bits now",)
    assert outcome.exact
    require_clean(check_image(image.device))
    assert check_image(image.device).counts.wide_directories == 0
    assert image.superblock.incompatible == FEATURE_KEYS31
    after = offsets(image.device.snapshot())
    assert len(after) == len(before)
    assert max(before) >= 1 << 31 > max(after)
    assert survey(open_copy(image.device.snapshot())) == survey(open_copy(old_volume()))
    assert repair_image(image.device, NOW, narrow=True).actions == ()


@pytest.mark.parametrize("seed", range(examples(10)))
def test_a_conversion_that_is_cut_off_loses_nothing(seed: int) -> None:
    image = old_image()
    recording = RecordingDevice(image.device)
    repair_image(recording, NOW, narrow=True)
    states = CrashStates(old_volume(), recording.records)
    position = Random(seed).randrange(len(recording.records) + 1)
    cut = Image(MemoryDevice.from_bytes(states.image(position, Shredded(seed))))
    repaired(cut)
    assert survey(open_copy(cut.device.snapshot())) == survey(open_copy(old_volume()))
    repair_image(cut.device, NOW, narrow=True)
    assert max(offsets(cut.device.snapshot())) < 1 << 31
    assert survey(open_copy(cut.device.snapshot())) == survey(open_copy(old_volume()))


def test_a_directory_with_more_entries_than_31_bit_keys_allow_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names_module, "DIRECTORY_ENTRIES_MAX", len(NAMES) - 1)
    image = old_image()
    outcome = repair_image(image.device, NOW, narrow=True)
    assert "left as it is" in outcome.actions[0]
    report = check_image(image.device)
    require_clean(report)
    assert report.counts.wide_directories == 1
    assert survey(open_copy(image.device.snapshot())) == survey(open_copy(old_volume()))


@pytest.mark.parametrize(("ino", "flags"), [(BIG, FLAG_KEYS31), (FILES, 0)])
def test_a_directory_whose_record_is_lost_is_of_the_kind_of_its_leaves(ino: int, flags: int) -> None:
    image = sample()
    before = view_entries(image, ino)
    image.put_record(ino, bytes(512))
    repaired(image)
    assert image.inode(ino).flags == flags
    assert view_entries(image, ino) == before


def test_a_conversion_of_a_directory_that_has_lost_only_its_flag() -> None:
    image = sample()
    before = view_entries(image, BIG)
    CASES["directories.directory_of_31_bit_keys_without_its_flag"].damage(image)
    assert repair_image(image.device, NOW, narrow=True).report.clean
    assert view_entries(image, BIG) == before


def test_directories_that_a_repair_makes_are_of_the_kind_of_their_image() -> None:
    image = sample()
    CASES["directories.file_without_a_name"].damage(image)
    repaired(image)
    assert image.inode(dict_of(image, ROOT_INO)[b"lost+found"]).flags == FLAG_KEYS31
    image = sample()
    image.change_inode(ROOT_INO, mode=stat.S_IFREG | 0o644)
    repaired(image)
    assert image.inode(ROOT_INO).flags == FLAG_KEYS31
    image = old_image()
    image.change_inode(ROOT_INO, mode=stat.S_IFREG | 0o644)
    repaired(image)
    assert image.inode(ROOT_INO).flags == image.inode(dict_of(image, ROOT_INO)[b"lost+found"]).flags == 0


def dict_of(image: Image, ino: int) -> dict[bytes, int]:
    view = View(image.device)
    return {found.name: found.ino for found in view.entries(view.inode(ino))}


def view_entries(image: Image, ino: int) -> list[Entry]:
    view = View(image.device)
    return [(found.key, found.name) for found in view.entries(view.inode(ino))]
