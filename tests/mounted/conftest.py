"""Fixtures of the tests that mount."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.installed import require_up_to_date
from tests.mounted.scratch import Scratch

MakeScratch = Callable[..., Scratch]


@pytest.fixture(scope="session", autouse=True)
def installed_is_this_tree() -> None:
    """These tests run the installed daemon: it must be the one of the sources that are tested."""
    require_up_to_date()


@pytest.fixture(params=["deferred", "inline"])
def evict(request: pytest.FixtureRequest) -> str:
    """Both evict policies, in turn."""
    return str(request.param)


@pytest.fixture
def make_scratch(tmp_path: Path) -> Iterator[MakeScratch]:
    """Makes formatted images with a mountpoint each; clears away what is still mounted."""
    made: list[Scratch] = []

    def make(**arguments: Any) -> Scratch:
        made.append(Scratch(tmp_path / f"scratch{len(made)}", **arguments))
        return made[-1]

    yield make
    for scratch in made:
        scratch.end()


@pytest.fixture
def scratch(make_scratch: MakeScratch, evict: str) -> Scratch:
    """A formatted image, not mounted yet, under each evict policy."""
    return make_scratch(evict=evict)


@pytest.fixture
def plain(make_scratch: MakeScratch) -> Scratch:
    """A formatted image, not mounted yet, where the evict policy does not matter."""
    return make_scratch()
