"""Crash consistency: a model filesystem, the disk states that a power failure may leave, and an oracle for them.

`content` and `model` define what a filesystem should hold, independently of the store. `twin` drives a volume and the
model together and keeps the `history` of states. `states` makes the images that a crash may leave, from a recorded log
of writes and flushes. `oracle` recovers such an image and decides whether the result is allowed.

The names exported here are for other programs; see `docs/volume-library.md`. They are imported on first use, because
the pytest plugin is loaded into every run of pytest.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from deferfs.crash.examination import CrashError
    from deferfs.crash.explorer import Failure, Limits, Tally
    from deferfs.crash.states import CrashStates, Shredded, Subset, subsets
    from deferfs.crash.view import RecoveredView
    from deferfs.crash.volume_under_test import Invariant, VolumeUnderTest
    from deferfs.crash.world import Shape

__all__ = [
    "CrashError",
    "CrashStates",
    "Failure",
    "Invariant",
    "Limits",
    "RecoveredView",
    "Shape",
    "Shredded",
    "Subset",
    "Tally",
    "VolumeUnderTest",
    "subsets",
]
_MODULES: Final = {
    "CrashError": "examination",
    "CrashStates": "states",
    "Failure": "explorer",
    "Invariant": "volume_under_test",
    "Limits": "explorer",
    "RecoveredView": "view",
    "Shape": "world",
    "Shredded": "states",
    "Subset": "states",
    "Tally": "explorer",
    "VolumeUnderTest": "volume_under_test",
    "subsets": "states",
}


def __getattr__(name: str) -> object:
    """Import a public name from its module."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """For completion."""
    return sorted([*globals(), *__all__])
