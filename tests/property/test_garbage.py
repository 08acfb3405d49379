"""No request leaves garbage that only Python's cyclic collector frees: it holds the bytes of requests until then."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.examples import examples
from tests.installed import installed_package, is_compiled, out_of_date
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


@pytest.mark.parametrize("scene", garbage.SCENES)
def test_no_request_leaves_a_cycle(scene: str) -> None:
    left, met = garbage.find(scene, REQUESTS)
    assert left == {}
    if wait := WAITS.get(scene):
        assert met[wait] > REQUESTS


@pytest.mark.timeout(900)  # all scenes in one program: half a minute on an idle machine
@pytest.mark.skipif(not is_compiled(), reason="the core of the installed package is plain Python")
def test_no_request_leaves_a_cycle_in_compiled_code() -> None:
    assert out_of_date() == [], "what is installed is not what is here: tests/setup-environment"
    root = Path(__file__).parents[2]
    program = (
        f"import sys; sys.path[:0] = [{str(installed_package().parent)!r}]; sys.path.append({str(root)!r});"
        "import deferfs.store.plan as core; from tests.property import garbage;"
        "print(core.__file__); garbage.main()"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, str(REQUESTS)],
        cwd="/",
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    core, *left = done.stdout.splitlines()
    assert core.endswith(".so")
    assert left == []
