"""The available scenarios, found by the names of their modules."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from typing import Final

from deferfs.errors import UsageError
from deferfs.measure.scenario import Scenario

PACKAGE: Final = "deferfs.measure.scenarios"


def find_scenarios(packages: Iterable[str] = (PACKAGE,)) -> dict[str, Scenario]:
    """All scenarios by name, sorted. Modules whose name begins with an underscore, or without `SCENARIO`, are parts of
    others.
    """
    found: dict[str, Scenario] = {}
    for package in packages:
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
            scenario = getattr(importlib.import_module(module.name), "SCENARIO", None)
            if scenario is not None:
                found[scenario.name] = scenario
    return dict(sorted(found.items()))


def find(name: str, scenarios: dict[str, Scenario]) -> Scenario:
    """The scenario called `name`. UsageError that lists the available ones."""
    try:
        return scenarios[name]
    except KeyError:
        raise UsageError(f"no scenario {name}; there are {', '.join(scenarios) or 'none'}") from None
