"""A pytest plugin: a test that uses the fixture `crash_volume` is followed by all crashes of its operations.

The test fails when one of them breaks a promise of the filesystem, or an invariant added by the test. It is loaded by
an entry point and imports nothing until a test needs it.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from deferfs.crash.volume_under_test import VolumeUnderTest

_FIXTURE: Final = "crash_volume"


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--crash-seed`."""
    group = parser.getgroup("deferfs", "crash exploration")
    group.addoption(
        "--crash-seed", type=int, default=0, metavar="N", help="draw other crash states where not all are taken"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line(
        "markers",
        "crash(block_size=1024, evict='deferred', free_blocks=1200, torn=24, states_per_epoch=None): the filesystem of "
        f"{_FIXTURE}, and how many states are taken",
    )


@pytest.fixture
def crash_volume(request: pytest.FixtureRequest) -> VolumeUnderTest:
    """A new filesystem in memory; see `deferfs.crash.volume_under_test.VolumeUnderTest`."""
    from deferfs.crash.explorer import Limits
    from deferfs.crash.volume_under_test import VolumeUnderTest
    from deferfs.crash.world import Shape

    marker = request.node.get_closest_marker("crash")
    wanted: dict[str, Any] = dict(marker.kwargs) if marker is not None else {}
    limits = {name: wanted.pop(name) for name in ("torn", "states_per_epoch") if name in wanted}
    try:
        shape = Shape(**wanted)
    except TypeError as error:
        raise pytest.UsageError(f"marker crash: {error}") from error
    return VolumeUnderTest(shape, limits=Limits(**limits))


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Explore as the last part of the test itself, so that a finding is the test's failure."""
    result = yield
    volume: VolumeUnderTest | None = pyfuncitem.funcargs.get(_FIXTURE)  # type: ignore[assignment]
    if volume is not None:
        tally = volume.explore(seed=pyfuncitem.config.getoption("--crash-seed"))
        pyfuncitem.user_properties.append(("crash_states", tally.states))
    return result


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Report how much was explored."""
    reports = terminalreporter.getreports("passed")
    states = [value for report in reports for name, value in report.user_properties if name == "crash_states"]
    if states:
        terminalreporter.write_line(f"deferfs: {sum(states):,} crash states of {len(states)} tests explored")
