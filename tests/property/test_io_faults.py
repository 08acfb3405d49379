"""A device that fails, at every single request of a run in turn (in the usual run: at one in five), and one that does
less than it is asked.

A slow device is nothing new here: in all these runs requests wait while operations go on (`crash.stepping`). After the
failure the run goes on as far as it can. Nothing that was acknowledged may be lost, whatever crash follows.
"""

from __future__ import annotations

import errno
import itertools
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from deferfs.check import check_image
from deferfs.crash.actions import act
from deferfs.crash.exploration import EVICT_MODES
from deferfs.crash.explorer import Limits
from deferfs.crash.model import ROOT, differences, linked
from deferfs.crash.runs import random_actions
from deferfs.crash.tree import check_contents, read_tree
from deferfs.crash.world import SMALL_JOURNAL_BLOCKS, Shape, World, fresh_image
from deferfs.device import Buffer, FailingDevice, Fault, FileDevice, Request, WriteRecord
from deferfs.errors import DeviceError, FsError
from deferfs.volume.driver import Driver
from tests.examples import night, stride

pytestmark = [pytest.mark.timeout(600), pytest.mark.compiled]
EVERYTHING = frozenset(Request)
ACTIONS = 90
FEW = Limits(torn=2, states_per_epoch=12, within=4, empty_every=4)
KINDS = {"eio": errno.EIO, "enospc": errno.ENOSPC}


def shape_for(evict: str) -> Shape:
    """So little memory that blocks are read again and again; discards are requests too."""
    return Shape(free_blocks=150, journal_blocks=SMALL_JOURNAL_BLOCKS, evict=evict, memory_bytes=96 << 10, discard=True)


class HalfWritten(FailingDevice):
    """A write that fails has reached the disk in part: the first half of it, which goes into the log of `world` too."""

    world: World

    def write(self, offset: int, data: Buffer) -> None:
        """Write, or fail half way."""
        try:
            super().write(offset, data)
        except DeviceError:
            half = bytes(data[: len(data) // 2])
            self.inner.write(offset, half)
            device = self.world.twin.device
            device._records.append(WriteRecord(offset, half))
            device.phases.append("a write that fails")
            raise


def run_with(fault: Fault, evict: str, seed: int) -> World:
    """A run until the fault has ended it, or to its end."""
    world = World(shape_for(evict), seed)
    device = HalfWritten(world.twin.below.inner)
    device.world = world
    world.twin.below = world.twin.device.inner = device
    device.add(fault)
    for word, numbers in random_actions(random.Random(seed), ACTIONS):
        if word == "remount":
            continue
        try:
            act(world, word, numbers)
        except (FsError, DeviceError) as error:
            if not world.twin.below.failures or error.errno not in (errno.EIO, errno.ENOSPC, errno.EROFS):
                raise
            break
    return world


def require_nothing_lost(world: World) -> None:
    """Whether the fault was noted or not: all crashes from here lead to what was promised."""
    twin = world.twin
    if twin.volume.store.journal.aborted is not None:
        before = twin.history.floors[-1]
        for durable in (twin.driver.commit, twin.driver.checkpoint, lambda: twin.driver.fsync(ROOT)):
            with pytest.raises(FsError, match="EIO"):
                durable()
        assert twin.history.floors[-1] == before
    last_flush = twin.oracle.states.last_flush(twin.position)
    world.explore(max(0, last_flush - 3), limits=FEW)


def every_request(number: int, *, sticky: bool, evict: str, seed: int, step: int) -> int:
    """Fail each `step`-th request of the run; how many there were."""
    for skip in itertools.count(0, step):
        fault = Fault(EVERYTHING, skip=skip, sticky=sticky, errno=number)
        world = run_with(fault, evict, seed)
        if not world.twin.below.failures:
            return skip
        require_nothing_lost(world)
    raise AssertionError("unreachable")


@pytest.mark.parametrize(
    ("evict", "kind"), [("deferred", "eio"), ("inline", "enospc"), night("deferred", "enospc"), night("inline", "eio")]
)
def test_every_request_fails_once(evict: str, kind: str) -> None:
    assert every_request(KINDS[kind], sticky=False, evict=evict, seed=2, step=stride(1)) > 60


@pytest.mark.parametrize("kind", [kind if kind == "eio" else night(kind) for kind in KINDS])
def test_every_request_from_some_on_fails(kind: str) -> None:
    assert every_request(KINDS[kind], sticky=True, evict="deferred", seed=3, step=3) > 60


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(10, 30))
def test_every_request_of_many_runs(seed: int) -> None:
    for kind, sticky in itertools.product(KINDS.values(), (False, True)):
        every_request(kind, sticky=sticky, evict=EVICT_MODES[seed % 2], seed=seed, step=1)


# --- short IO ---


def test_short_reads_and_writes_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same run on an image file whose system calls do less than they were asked, and on memory."""
    dice = random.Random(1)
    shorted = 0

    def pwrite(fd: int, data: Any, offset: int) -> int:
        nonlocal shorted
        length = dice.randint(1, len(data))
        shorted += length < len(data)
        return real_pwrite(fd, memoryview(data)[:length], offset)

    def pwritev(fd: int, buffers: Sequence[Any], offset: int, flags: int = 0) -> int:
        return pwrite(fd, b"".join(buffers), offset)

    def pread(fd: int, length: int, offset: int) -> bytes:
        nonlocal shorted
        part = dice.randint(1, length)
        shorted += part < length
        return real_pread(fd, part, offset)

    real_pwrite, real_pread = os.pwrite, os.pread
    monkeypatch.setattr(os, "pwrite", pwrite)
    monkeypatch.setattr(os, "pwritev", pwritev)
    monkeypatch.setattr(os, "pread", pread)
    shape = shape_for("deferred")
    path = tmp_path / "image"
    path.write_bytes(fresh_image(shape))
    world = World(shape, 4)
    device = FileDevice.open(str(path), writable=True)
    world.twin.below.inner = device
    for word, numbers in random_actions(random.Random(4), 200):
        if word != "remount":
            act(world, word, numbers)
    world.twin.verify()
    assert shorted > 100
    world.twin.driver.close()
    expected = linked(world.twin.model.nodes)
    device = FileDevice.open(str(path), writable=True)
    assert check_image(device).clean
    again = Driver.open(device, clock=itertools.count(1 << 50).__next__, entropy=lambda: 7)
    assert not differences(linked(read_tree(again)), expected)
    assert not check_contents(again, expected)
    again.close()
