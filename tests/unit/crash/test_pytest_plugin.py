"""The fixture crash_volume, in a pytest of its own."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

pytest_plugins = ("pytester",)
pytestmark = pytest.mark.compiled

DOCUMENT = Path(__file__).parents[3] / "docs" / "crash-consistency.md"
IN_PLACE = """
def test_in_place(crash_volume):
    crash_volume.write("/data", b"old" * 1000)
    crash_volume.sync()

    @crash_volume.invariant
    def old_or_new(found):
        assert found.read("/data") in (b"old" * 1000, b"new" * 1000)

    crash_volume.write("/data", b"new" * 1000, 0)
    crash_volume.fsync("/data")
"""
MARKED = """
import pytest

@pytest.mark.crash(block_size=4096, evict="inline", free_blocks=150, torn=2)
def test_marked(crash_volume):
    assert crash_volume.world.shape.block_size == 4096
    crash_volume.mkdir("/a")
    crash_volume.create("/a/f")
    crash_volume.fdatasync("/a/f")
    crash_volume.unlink("/a/f")
    crash_volume.rmdir("/a")
    crash_volume.forget()
    crash_volume.collect()
    crash_volume.checkpoint()
    assert not crash_volume.exists("/a")

@pytest.mark.crash(colour="green")
def test_unknown(crash_volume):
    pass

def test_without():
    pass
"""


def run(pytester: pytest.Pytester, text: str, *arguments: str) -> pytest.RunResult:
    pytester.makepyfile(textwrap.dedent(text))
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *arguments)


def test_a_test_that_keeps_its_promise_passes(pytester: pytest.Pytester) -> None:
    """The example of the documentation: replace by rename, the old or the new content in every crash."""
    (example,) = re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    result = run(pytester, example)
    result.assert_outcomes(passed=1)
    result.stdout.re_match_lines([r"deferfs: \d+ crash states of 1 tests explored"])


def test_a_broken_invariant_is_a_failure(pytester: pytest.Pytester) -> None:
    """Overwriting in place is torn: the test itself fails, and says at which crash."""
    result = run(pytester, IN_PLACE, "--crash-seed", "3")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*Failure: of epoch * keep writes *"])


def test_the_marker_chooses_the_filesystem(pytester: pytest.Pytester) -> None:
    result = run(pytester, MARKED)
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*marker crash: *colour*"])


def test_the_fixture_and_the_marker_are_listed(pytester: pytest.Pytester) -> None:
    assert "crash_volume" in pytester.runpytest_subprocess("--fixtures").stdout.str()
    assert "@pytest.mark.crash" in pytester.runpytest_subprocess("--markers").stdout.str()
