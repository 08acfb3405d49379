"""No request leaves garbage that only Python's cyclic collector frees: it holds the bytes of requests until then."""

from typing import Final

import pytest

from tests.examples import examples
from tests.property import garbage

REQUESTS: Final = examples(54)
"""Of each kind in each scene: some 10,000 in all in the night, a third of them in the usual run."""
WAITS: Final = {"plain": "", "cold": "io", "memory": "memory", "log": "log", "full": "refused", "frozen": "thaw"}
"""What the requests of a scene must have met, or it shows nothing."""


def test_the_search_finds_a_cycle() -> None:
    found = garbage.Found()
    with garbage.collected(found):
        cycle: list[object] = []
        cycle.append(cycle)
        del cycle
    assert found.garbage == {"builtins.list": 1}


def test_every_request_that_is_handled_is_made() -> None:
    assert len(garbage.requests()) >= 27
    assert [name for name in garbage.requests() if not hasattr(garbage.Client, name)] == []


@pytest.mark.compiled
@pytest.mark.parametrize("scene", garbage.SCENES)
def test_no_request_leaves_a_cycle(scene: str) -> None:
    left, met = garbage.find(scene, REQUESTS)
    assert left == {}
    if wait := WAITS.get(scene):
        assert met[wait] > REQUESTS
