"""ENOSPC comes only when what is free and what is pending is less than what is needed, whatever came before it.

The image has several groups, and files larger than a group: the runs that come back cross the boundaries.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deferfs.errors import FsError
from deferfs.limits import KIB, MIB
from deferfs.mount.runtime.runtime import Runtime
from deferfs.store.needs import NeedBlocks
from deferfs.store.store import Store
from deferfs.volume.driver import Driver
from deferfs.volume.waits import Task
from tests.examples import examples, night
from tests.unit.runtimes import delete_and_forget, make_file, running, write_back
from tests.unit.volumes import assert_sound, fresh_driver, make, record, unlink

SIZE = 20 * MIB
"""Three groups of 1 KiB blocks, the last of them short."""
TREE_BLOCKS = 4
"""Blocks that a write may need beside its data, for the extent tree, a directory and the inode table."""
WRITE_BLOCKS = 512
"""The most data of one write."""
NEEDED: ContextVar[int] = ContextVar("needed")
"""Blocks of data of the write under way."""
FILES = 4


def truly_free(store: Store) -> int:
    """Blocks that the bitmaps call free: what is pending is among them, whatever the index counts."""
    free = 0
    for group in range(store.superblock.groups):
        try:
            free += store.space.published(group).count(0)
        except NeedBlocks:  # nothing looked into it since it was counted
            free += store.space.counts[group]
    return free


def require_full(store: Store, *, backlog: bool) -> None:
    """A refusal is right at this moment: what is free and pending is less than the write needs."""
    store.space.check()
    assert not backlog, "inodegc could have freed blocks"
    left = truly_free(store) - store.space.reserve
    assert left < NEEDED.get() + TREE_BLOCKS, f"refused with {left} blocks left, of which {NEEDED.get()} were wanted"


def require_refusal(error: FsError) -> None:
    assert error.errno == errno.ENOSPC, str(error)


class Files:
    """Large files, written and deleted in any order."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.open: dict[int, int] = {}

    def write(self, number: int, blocks: int) -> None:
        driver = self.driver
        NEEDED.set(0)
        try:
            if number not in self.open:
                self.open[number] = make(driver, b"%d" % number)
                driver.volume.lookup_count(record(driver, self.open[number]))
            ino = self.open[number]
            for done in range(0, blocks, WRITE_BLOCKS):
                NEEDED.set(min(WRITE_BLOCKS, blocks - done))
                driver.write(ino, record(driver, ino).size, bytes(NEEDED.get() * KIB))
        except FsError as error:
            require_refusal(error)
            require_full(driver.volume.store, backlog=bool(driver.volume.gc.backlog))

    def delete(self, number: int) -> None:
        ino = self.open.pop(number, None)
        if ino is not None:
            unlink(self.driver, b"%d" % number)
            self.driver.forget(ino, 1)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, FILES - 1), st.sampled_from([1, 700, 5000, 9000, 20_000])),
        st.tuples(st.just("delete"), st.integers(0, FILES - 1), st.just(0)),
        st.tuples(st.sampled_from(["commit", "collect", "checkpoint"]), st.just(0), st.just(0)),
    ),
    min_size=5,
    max_size=25,
)


ROUND = [("write", 0, 20_000), ("delete", 0, 0), ("collect", 0, 0), ("commit", 0, 0)]


@settings(max_examples=examples(30))
@example(evict="deferred", steps=ROUND * 4)
@example(evict="inline", steps=ROUND * 4)
@given(evict=st.sampled_from(["deferred", "inline"]), steps=STEPS)
def test_any_order_of_writes_deletes_commits_and_cleanups(evict: str, steps: list[tuple[str, int, int]]) -> None:
    driver = fresh_driver(SIZE, evict=evict)
    files = Files(driver)
    for what, number, blocks in steps:
        if what == "write":
            files.write(number, blocks)
        elif what == "delete":
            files.delete(number)
        elif what == "commit":
            driver.commit()
        elif what == "collect":
            driver.collect(1)
        else:
            driver.checkpoint()
    for number in list(files.open):
        files.delete(number)
    driver.collect()
    driver.commit()
    assert driver.volume.store.space.free_blocks == truly_free(driver.volume.store)
    driver.volume.store.space.check()
    assert_sound(driver)


@contextmanager
def judged(runtime: Runtime, patch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Each refusal is judged in the very step that decides it."""
    refusals: list[int] = []
    make_room = runtime.engine.space.make

    def make_and_judge(blocks: int, *, reserve: bool) -> Task[None]:
        try:
            yield from make_room(blocks, reserve=reserve)
        except FsError as error:
            require_refusal(error)
            assert not reserve
            assert not runtime.store.space.pending_blocks
            require_full(runtime.store, backlog=runtime.workers.has_work)
            refusals.append(blocks)
            raise

    with patch.context() as patched:
        patched.setattr(runtime.engine.space, "make", make_and_judge)
        yield refusals


@pytest.mark.parametrize("evict", ["deferred", "inline"])
@pytest.mark.parametrize("seed", [0, 1, night(2), night(3)])
async def test_writers_and_deleters_side_by_side(evict: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    dice = random.Random(seed)
    async with running(evict=evict, size=SIZE) as runtime:
        with judged(runtime, monkeypatch) as refusals:

            async def user(number: int) -> None:
                name = b"%d" % number
                for _ in range(12):
                    NEEDED.set(0)
                    ino, size = await make_file(runtime, name), 0
                    for _ in range(dice.randrange(20, 80)):
                        try:
                            NEEDED.set(dice.choice([1, 64, WRITE_BLOCKS]))
                            size += await runtime.write(ino, size, bytes(NEEDED.get() * KIB))
                        except FsError as error:
                            require_refusal(error)
                            break
                        for _ in range(dice.randrange(3)):
                            await trio.lowlevel.checkpoint()
                    await delete_and_forget(runtime, name, ino)

            async def committer() -> None:
                while True:
                    await write_back(runtime)
                    for _ in range(dice.randrange(20)):
                        await trio.lowlevel.checkpoint()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(committer)
                async with trio.open_nursery() as users:
                    for number in range(FILES):
                        users.start_soon(user, number)
                nursery.cancel_scope.cancel()
        await runtime.workers.flush()
        await runtime.sync()
        while runtime.store.space.pending_blocks:  # a checkpoint that nothing waits for may still write to them
            await runtime.drive(runtime.engine.durability.released())
        assert refusals, "the disk was never full"
        assert runtime.store.space.free_blocks == truly_free(runtime.store)
        runtime.store.space.check()
