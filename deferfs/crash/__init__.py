"""Crash consistency: a model filesystem, the disk states a power failure may leave, and an oracle that judges them.

`content` and `model` say what a filesystem should hold, independently of the store. `twin` drives a volume and the
model together and keeps the `history` of states. `states` makes the images a crash may leave, out of a recorded log
of writes and flushes. `oracle` recovers such an image and says whether what it finds is allowed.

What is exported here is for other programs; see `docs/volume-library.md`. It is imported when it is first asked for:
the pytest plugin is loaded into every run of pytest, whatever that tests.
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
    """A public name, from the module that has it."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """For completion."""
    return sorted([*globals(), *__all__])
