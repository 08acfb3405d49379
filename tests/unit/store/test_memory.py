import os
import random
from pathlib import Path

import pytest

from deferfs.device import FileDevice
from deferfs.store.checkpoint import checkpoint
from deferfs.store.commit import commit
from deferfs.store.io import Job, perform, run_job
from deferfs.store.memory import Memory
from deferfs.store.mkfs import make_filesystem, plan_geometry
from deferfs.store.needs import NeedMemory
from deferfs.store.pump import Pump
from tests.unit.volumes import (
    HASH_KEY,
    UUID,
    formats,
    fresh_driver,
    fresh_store,
    look_up,
    make_file,
    names,
    open_driver,
    unlink,
)


def test_used_is_the_sum_of_the_accounts() -> None:
    memory = Memory(1600)
    used = {"a": 300, "b": 4}
    for name in used:
        memory.add_account(name, lambda name=name: used[name], lambda: 1 << 40)  # type: ignore[misc]
    assert memory.used == 304
    used["a"] = 1000
    statistics = memory.statistics()
    assert (statistics.budget_bytes, statistics.reserve_bytes, statistics.used_bytes) == (1600, 100, 1004)
    assert statistics.accounts == {"a": 1000, "b": 4}


@pytest.mark.parametrize(
    ("used", "ordinary", "reserve"), [(1500, 0, 0), (1501, 1, 0), (1600, 100, 0), (1700, 200, 100)]
)
def test_the_reserve_is_for_inactivation(used: int, ordinary: int, reserve: int) -> None:
    memory = Memory(1600)
    memory.add_account("all", lambda: used, lambda: 1 << 40)
    assert memory.excess(reserve=False) == ordinary
    assert memory.excess(reserve=True) == reserve


def test_a_new_limit_sets_the_reserve_anew() -> None:
    memory = Memory(1600)
    memory.set_limit(3200)
    assert (memory.limit_bytes, memory.reserve_bytes) == (3200, 200)


def test_a_plan_needs_memory_when_the_budget_is_exceeded() -> None:
    store = fresh_store()
    store.memory.set_limit(store.memory.used)
    with pytest.raises(NeedMemory) as caught:
        store.plan()
    assert caught.value.bytes_over == store.cache.bytes - store.cache.held_bytes < store.memory.reserve_bytes
    store.plan(reserve=True)


def test_the_budget_counts_inodes_and_blocks() -> None:
    driver = fresh_driver()
    before = driver.volume.store.memory.statistics().accounts
    driver.volume.inodes.lookup(8, 1)
    after = driver.volume.store.memory.statistics().accounts
    assert after["inodes"] > before["inodes"] == 0
    assert after["blocks"] == before["blocks"] == driver.volume.store.cache.bytes > 0


def test_the_accounts_of_blocks_add_up_at_every_step() -> None:
    """Whatever is between a change and its way home: `held_bytes` and `superseded_bytes` are what a count of all
    versions in memory gives."""
    driver = fresh_driver(journal_blocks=400)
    store = driver.volume.store
    steps = [0, 0]

    def look() -> None:
        cache, journal = store.cache, store.journal
        assert cache.bytes == sum(entry.cost for entry in cache.entries.values())
        assert cache.held_bytes == sum(entry.cost for entry in cache.entries.values() if entry.holds)
        assert cache.evictable == {address: entry for address, entry in cache.entries.items() if not entry.holds}
        committing = journal.committing.images.items() if journal.committing is not None else ()
        versions = [*committing, *((address, image) for address, (_, image) in journal.pending_home.items())]
        old = [obj for address, obj in versions if not (e := cache.entries.get(address)) or e.obj is not obj]
        assert journal.superseded_bytes == sum(obj.cost(store.fmt) for obj in old)
        steps[0] += 1
        steps[1] += bool(old)

    def change(number: int) -> None:
        name = b"f%d" % (number % 40)
        if name in names(driver):
            unlink(driver, name)
            driver.collect()
        else:
            make_file(driver, name, bytes(3000 * (number % 5)))
        look()

    chance = random.Random(1)
    for _ in range(60):
        change(chance.randrange(40))
        job: Job[int] = chance.choice((commit, checkpoint))(store.journal, 1)
        running = Pump(job)
        while (request := running.resume()) is not None:
            running.answer(perform(driver.device, request))
            change(chance.randrange(40))
    assert steps[1] > 100, "superseded versions were met"


def test_a_large_empty_image_takes_no_memory_for_its_bitmaps(tmp_path: Path) -> None:
    """A thousand groups, a budget of 4 MiB: the bitmaps alone would take half of that."""
    fmt = formats()[0]
    blocks = 1000 * fmt.bits_per_bitmap
    geometry = plan_geometry(blocks * fmt.block_size, block_size=fmt.block_size, uuid=UUID, hash_key=HASH_KEY, now_ns=1)
    path = tmp_path / "image"
    path.touch()
    os.truncate(path, blocks * fmt.block_size)
    image = FileDevice.open(str(path), writable=True)
    run_job(image, make_filesystem(geometry))
    driver = open_driver(image, memory_bytes=4 << 20)
    store = driver.volume.store
    assert len(store.space.counts) == 1000
    assert store.memory.used < 1 << 20
    for number in range(8):
        store.cache.shrink(1 << 62)
        store.space.cursor = number * 100 * fmt.bits_per_bitmap
        make_file(driver, b"f%d" % number, b"x" * 100_000)
    driver.commit()
    store.space.check()
    assert all(driver.read(look_up(driver, b"f%d" % n).ino, 0, 100_000) == b"x" * 100_000 for n in range(8))
