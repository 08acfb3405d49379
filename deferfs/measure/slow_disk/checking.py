"""Check of a slow disk: its latencies, measured from outside, compared with those stated by its preset."""

from __future__ import annotations

import mmap
import os
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from deferfs.measure.slow_disk.disk import SlowDisk
from deferfs.measure.slow_disk.model import Stated, stated
from deferfs.measure.slow_disk.presets import PRESETS, Preset, preset_of
from deferfs.measure.slow_disk.wire import Kind

BLOCK_BYTES: Final = 4096
IMAGE_BYTES: Final = 64 << 20
KINDS: Final[tuple[Kind, ...]] = ("read", "write", "flush")


class Checked(msgspec.Struct, frozen=True):
    """One kind of request: stated and measured times, and those of a disk without delay (`none`), i.e. the overhead of
    loop device, FUSE and the server. In ms; `least` of measured is the shortest.
    """

    kind: Kind
    stated: Stated
    measured: Stated
    machinery: Stated


class SelfCheck(msgspec.Struct, frozen=True):
    """`rounds` times a random 4 KiB read, a random 4 KiB write and a flush, sequentially, without page cache.

    `late_ns`: mean delay of the server's answers beyond the model.
    """

    preset: str
    rounds: int
    checked: list[Checked]
    late_ns: float

    @property
    def is_honest(self) -> bool:
        """Whether nothing was faster than stated."""
        return all(one.measured.least >= one.stated.least for one in self.checked)

    def lines(self) -> list[str]:
        """A table for people."""
        head = f"{self.preset}, {self.rounds} of each, in ms: stated -> measured (of which the way there takes)"
        rows = []
        for one in self.checked:
            pairs = zip(Stated._fields, one.stated, one.measured, one.machinery, strict=True)
            cells = (f"{name} {said:.3f} -> {found:.3f} ({way:.3f})" for name, said, found, way in pairs)
            rows.append(f"  {one.kind:<5}  {'   '.join(cells)}")
        return [head, *rows, f"  answers given {self.late_ns / 1e6:.3f} ms late on average"]


def self_check(
    preset: str | Preset,
    scratch: Path | None = None,
    own: Callable[[int], None] = lambda pid: None,
    rounds: int = 200,
    seed: int = 0,
) -> SelfCheck:
    """Measure a disk of this preset over an empty image below `scratch` (default: the system's temporary directory).
    Raises as `SlowDisk` does."""
    chosen = preset_of(preset) if isinstance(preset, str) else preset
    with tempfile.TemporaryDirectory(prefix="deferfs-slow-disk-", dir=scratch) as directory:
        image = Path(directory) / "image"
        with image.open("xb") as file:
            file.truncate(IMAGE_BYTES)
        with SlowDisk(image, PRESETS["none"], Path(directory), own, seed) as disk:
            device = os.open(disk.device, os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC)
            try:
                machinery = _measure(device, rounds, seed)
                before = disk.counters()
                disk.set_preset(chosen)
                measured = _measure(device, rounds, seed)
                after = disk.counters()
            finally:
                os.close(device)
    requests = sum(after[name] - before[name] for name in ("reads", "writes", "flushes"))
    checked = [Checked(kind, stated(chosen, kind, BLOCK_BYTES), measured[kind], machinery[kind]) for kind in KINDS]
    return SelfCheck(chosen.name, rounds, checked, (after["late_ns"] - before["late_ns"]) / requests)


def _measure(device: int, rounds: int, seed: int) -> dict[Kind, Stated]:
    dice = random.Random(seed)
    buffer = mmap.mmap(-1, BLOCK_BYTES)  # aligned for direct IO
    blocks = IMAGE_BYTES // BLOCK_BYTES
    times: dict[Kind, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(rounds):
        offsets = [dice.randrange(blocks) * BLOCK_BYTES for _ in range(2)]
        marks = [time.perf_counter_ns()]
        os.preadv(device, [buffer], offsets[0])
        marks.append(time.perf_counter_ns())
        os.pwritev(device, [buffer], offsets[1])
        marks.append(time.perf_counter_ns())
        os.fdatasync(device)
        marks.append(time.perf_counter_ns())
        for kind, start, end in zip(KINDS, marks, marks[1:], strict=False):
            times[kind].append((end - start) / 1e6)
    return {kind: _summary(sorted(found)) for kind, found in times.items()}


def _summary(times: list[float]) -> Stated:
    return Stated(times[0], times[len(times) // 2], times[min(len(times) - 1, len(times) * 99 // 100)])
