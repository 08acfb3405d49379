"""The presets of the slow disk, by name."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Final

from deferfs.errors import EnvironmentProblem, UsageError

DEFAULT: Final = "network"
"""Two milliseconds a request: what the figures of the documentation are measured on."""
MODULE: Final = "deferfs.measure.slow_disk"


def slow_disk() -> Any:
    """The module of the slow disk. EnvironmentProblem where it is not installed."""
    try:
        return importlib.import_module(MODULE)
    except ModuleNotFoundError as error:
        raise EnvironmentProblem("there is no slow disk in this installation") from error


def presets() -> Mapping[str, Any]:
    """All presets by name."""
    try:
        return dict(importlib.import_module(MODULE).PRESETS)
    except ModuleNotFoundError:
        return {"none": None, "ssd": None, "network": None, "hdd": None}


def check_preset(name: str) -> str:
    """`name`, which is one of the presets. UsageError otherwise."""
    there = presets()
    if name not in there:
        raise UsageError(f"--disk {name}: no such preset; there are {', '.join(there)}")
    return name
