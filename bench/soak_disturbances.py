"""What an administrator and the kernel do to a filesystem in use, while the processes of the soak work."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench.rows import DROP_ALL
from deferfs.limits import THROTTLE_INODES
from deferfs.mount import control_client

REST_SECONDS: Final = 0.5
"""How long it stays frozen, and inodegc rests."""
THROTTLED_INODES: Final = 32
"""A limit on the backlog that the processes reach; the default one they do not."""
PACE: Final = 500
"""Cleanup transactions a second: less than there are."""

Disturbance = Callable[[Path, int], None]
"""Disturbs the mount, for the nth time."""


def set_value(root: Path, key: str, value: object) -> str:
    """As `deferfs ctl`; what it prints."""
    return str(control_client.ask(control_client.find_mount(str(root)), "set", key=key, value=str(value)))


def _drop_kernel_caches(_root: Path, _turn: int) -> None:
    Path("/proc/sys/vm/drop_caches").write_text(DROP_ALL)


def _switch_mode(root: Path, turn: int) -> None:
    set_value(root, "evict", ("deferred", "inline")[turn % 2])


def _change_workers(root: Path, turn: int) -> None:
    set_value(root, "gc_workers", 1 + turn % 4)


def _change_limit(root: Path, turn: int) -> None:
    set_value(root, "throttle_inodes", (THROTTLE_INODES, THROTTLED_INODES)[turn % 2])


def _change_pace(root: Path, turn: int) -> None:
    set_value(root, "gc_rate", (0, PACE)[turn % 2])


def _rest(root: Path, _turn: int) -> None:
    set_value(root, "gc", "stop")
    try:
        time.sleep(REST_SECONDS)  # cleanups gather meanwhile
    finally:
        set_value(root, "gc", "start")


def _freeze(root: Path, _turn: int) -> None:
    set_value(root, "freeze", 1)
    try:
        time.sleep(REST_SECONDS)  # writers wait meanwhile
    finally:
        set_value(root, "thaw", 1)


DISTURBANCES: Final[tuple[tuple[int, Disturbance], ...]] = (
    (17, _drop_kernel_caches),
    (23, _change_workers),
    (29, _change_limit),
    (31, _rest),
    (37, _change_pace),
    (41, _freeze),
    (60, _switch_mode),
)
"""Every how many samples each is due: seldom together, so that all combinations come up."""


def disturb(root: Path, sample: int, scale: int) -> None:
    """Whatever is due after so many samples; `scale`: how many times as often as in a long soak."""
    for every, disturbance in DISTURBANCES:
        turn, rest = divmod(sample, max(every // scale, 1))
        if not rest:
            disturbance(root, turn)


def calm(root: Path) -> None:
    """As it was before."""
    set_value(root, "evict", "deferred")
    set_value(root, "throttle_inodes", THROTTLE_INODES)
    set_value(root, "gc_rate", 0)
