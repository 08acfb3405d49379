"""Actions of an administrator and of the kernel on a filesystem in use, while the processes of the soak work."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from deferfs.contract.requests import Set
from deferfs.contract.statistics import Statistics
from deferfs.limits import THROTTLE_INODES
from deferfs.measure.mounts.daemon import statistics_of
from deferfs.measure.scenario import Ask
from deferfs.measure.work.small_files import DROP_ALL

REST_SECONDS: Final = 0.5
"""How long the mount stays frozen, and inodegc stopped."""
THROTTLED_INODES: Final = 32
"""A limit on the backlog that the processes exceed, unlike the default."""
PACE: Final = 500
"""Cleanup transactions per second: fewer than needed."""


class Mount:
    """The mount under test, with access to its daemon."""

    def __init__(self, root: Path, ask: Ask) -> None:
        self.root, self._ask = root, ask

    def set(self, key: str, value: object) -> str:
        """As `deferfs ctl`; what it prints."""
        return self._ask(self.root, Set(key=key, value=str(value)))

    def statistics(self) -> Statistics:
        """The daemon's statistics."""
        return statistics_of(self.root, self._ask)


Disturbance = Callable[[Mount, int], None]
"""Disturbs the mount, for the nth time."""


def _drop_kernel_caches(_mount: Mount, _turn: int) -> None:
    Path("/proc/sys/vm/drop_caches").write_text(DROP_ALL)


def _switch_mode(mount: Mount, turn: int) -> None:
    mount.set("evict", ("deferred", "inline")[turn % 2])


def _change_workers(mount: Mount, turn: int) -> None:
    mount.set("gc_workers", 1 + turn % 4)


def _change_limit(mount: Mount, turn: int) -> None:
    mount.set("throttle_inodes", (THROTTLE_INODES, THROTTLED_INODES)[turn % 2])


def _change_pace(mount: Mount, turn: int) -> None:
    mount.set("gc_rate", (0, PACE)[turn % 2])


def _rest(mount: Mount, _turn: int) -> None:
    mount.set("gc", "stop")
    try:
        time.sleep(REST_SECONDS)  # cleanups accumulate meanwhile
    finally:
        mount.set("gc", "start")


def _freeze(mount: Mount, _turn: int) -> None:
    mount.set("freeze", 1)
    try:
        time.sleep(REST_SECONDS)  # writers wait meanwhile
    finally:
        mount.set("thaw", 1)


DISTURBANCES: Final[tuple[tuple[int, Disturbance], ...]] = (
    (17, _drop_kernel_caches),
    (23, _change_workers),
    (29, _change_limit),
    (31, _rest),
    (37, _change_pace),
    (41, _freeze),
    (60, _switch_mode),
)
"""Period of each, in samples: coprime, so that all combinations occur."""


def disturb(mount: Mount, sample: int, scale: int) -> None:
    """Apply the disturbances due at this sample; `scale`: how many times as often as in a long soak."""
    for every, disturbance in DISTURBANCES:
        turn, rest = divmod(sample, max(every // scale, 1))
        if not rest:
            disturbance(mount, turn)


def calm(mount: Mount) -> None:
    """Restore the initial settings."""
    mount.set("evict", "deferred")
    mount.set("throttle_inodes", THROTTLE_INODES)
    mount.set("gc_rate", 0)
