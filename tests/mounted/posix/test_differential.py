"""The same random calls on deferfs and on ext4 give the same results, step by step, and the same tree.

A failing example is a row: it can be pasted into a table.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import Phase, given, seed, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.mounted.posix import random_rows
from tests.mounted.posix.places import place

pytestmark = [pytest.mark.mounted, pytest.mark.needs("mkfs.ext4", "mkfs.xfs")]

ROOT = Path(__file__).parents[3]
LONG_SECONDS = 20 * 60 / 4
"""Each of the four long tests."""
ROUND_EXAMPLES = examples(300)
PROCESSES = 4


class Side:
    """One of the two filesystems, and the process that runs rows on it."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        words = [sys.executable, "-m", "tests.mounted.posix.serve", str(directory)]
        self._process = subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def send(self, steps: list[str]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("; ".join(steps) + "\n")
        self._process.stdin.flush()

    def receive(self) -> list[str]:
        assert self._process.stdout is not None
        found: list[str] = json.loads(self._process.stdout.readline() or '["died"]')
        return found

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


@pytest.fixture(scope="module", params=["deferfs-writeback-deferred", "deferfs-through-inline"])
def directories(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Path]]:
    base = tmp_path_factory.mktemp("differential")
    with place(base / "deferfs", request.param) as ours, place(base / "ext4", "ext4") as theirs:
        yield [ours.directory, theirs.directory]


@contextmanager
def sides(directories: list[Path], name: str) -> Iterator[list[Side]]:
    with ExitStack() as stack:
        made = []
        for directory in directories:
            made.append(Side(directory / name))
            stack.callback(made[-1].close)
        yield made


def compare(both: list[Side], steps: list[str]) -> None:
    """Run on both sides at once."""
    for side in both:
        side.send(steps)
    ours, theirs = (side.receive() for side in both)
    for step, mine, other in zip(steps, ours, theirs, strict=True):
        assert mine == other, f"{step}: {mine}, but ext4 {other}, in:\n{'; '.join(steps)}"


def explore(both: list[Side], rows: st.SearchStrategy[list[str]], rounds: int, start: int | None) -> None:
    @settings(max_examples=rounds, deadline=None, database=None, phases=[Phase.generate, Phase.shrink])
    @given(rows)
    def same(steps: list[str]) -> None:
        compare(both, steps)

    (seed(start)(same) if start is not None else same)()


KINDS = pytest.mark.parametrize("rows", [random_rows.NAMES, random_rows.DATA], ids=["names", "data"])


@KINDS
def test_same_results_and_same_tree(
    directories: list[Path], rows: st.SearchStrategy[list[str]], request: pytest.FixtureRequest
) -> None:
    with sides(directories, f"quick-{request.node.callspec.id}") as both:
        explore(both, rows, ROUND_EXAMPLES, None)


@pytest.mark.long
@pytest.mark.timeout(LONG_SECONDS * 2)
@KINDS
def test_same_for_a_long_time(
    directories: list[Path], rows: st.SearchStrategy[list[str]], request: pytest.FixtureRequest
) -> None:
    with sides(directories, f"long-{request.node.callspec.id}") as both:
        end = time.monotonic() + LONG_SECONDS
        for start in count():
            if time.monotonic() > end:
                break
            explore(both, rows, ROUND_EXAMPLES, start)


@KINDS
def test_same_with_several_processes_at_once(
    directories: list[Path], rows: st.SearchStrategy[list[str]], request: pytest.FixtureRequest
) -> None:
    """Each process has its own names; what they share is the filesystem."""
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            with sides(directories, f"process{number}-{request.node.callspec.id}") as both:
                explore(both, rows, ROUND_EXAMPLES // PROCESSES, number)
        except BaseException as error:
            errors.append(error)

    threads = [Thread(target=work, args=(number,)) for number in range(PROCESSES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_a_difference_is_found(tmp_path: Path) -> None:
    with sides([tmp_path / "one", tmp_path / "two"], "same") as both:
        compare(both, ["touch f", "mode f"])
        with pytest.raises(AssertionError, match="cwd: one, but ext4 two"):
            compare(both, ["chdir ../..", "cwd"])
