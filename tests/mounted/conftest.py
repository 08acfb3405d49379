"""Fixtures of the tests that mount."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.examples import night
from tests.installed import require_up_to_date
from tests.mounted.scratch import Scratch

MakeScratch = Callable[..., Scratch]


@pytest.fixture(scope="session", autouse=True)
def installed_is_this_tree() -> None:
    """These tests run the installed daemon: it must be the one of the sources that are tested."""
    require_up_to_date()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for `evict`, by itself or through a fixture, runs under that evict policy: under each in turn
    where it has the mark `each_policy`, else under the default, and under the other only with --long."""
    given = [name for mark in metafunc.definition.iter_markers("parametrize") for name in parameters(mark)]
    if "evict" in metafunc.fixturenames and "evict" not in given:
        each = metafunc.definition.get_closest_marker("each_policy") is not None
        metafunc.parametrize("evict", ["deferred", "inline" if each else night("inline")])


def parameters(mark: pytest.Mark) -> list[str]:
    """The names that a mark `parametrize` gives values to."""
    names = mark.args[0]
    return [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)


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
    """A formatted image, not mounted yet, of the evict policy that the test runs under."""
    return make_scratch(evict=evict)


@pytest.fixture
def plain(make_scratch: MakeScratch) -> Scratch:
    """A formatted image, not mounted yet, where the evict policy does not matter."""
    return make_scratch()
