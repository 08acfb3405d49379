from __future__ import annotations

import os
import signal

import pytest
import trio
import trio.testing

from deferfs.mount.daemon.signals import handle_signals


class Ending:
    """Goes down when it is hurried."""

    def __init__(self) -> None:
        self.began = 0
        self.hurried = trio.Event()

    async def run(self) -> None:
        self.began += 1
        await self.hurried.wait()

    def hurry(self) -> None:
        self.hurried.set()


@pytest.fixture
async def ending(nursery: trio.Nursery) -> Ending:
    """Signals are handled."""
    made = Ending()
    nursery.start_soon(handle_signals, made, lambda: ["a line", "another"])
    await trio.testing.wait_all_tasks_blocked()
    return made


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_first_begins_and_the_second_hurries(ending: Ending, number: int) -> None:
    os.kill(os.getpid(), number)
    while not ending.began:
        await trio.lowlevel.checkpoint()
    assert not ending.hurried.is_set()
    os.kill(os.getpid(), signal.SIGINT)
    await ending.hurried.wait()
    assert ending.began == 1


async def test_a_report_goes_to_the_log_line_by_line(ending: Ending, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGUSR1)
    while "another" not in caplog.messages:
        await trio.lowlevel.checkpoint()
    assert caplog.messages == ["a line", "another"]
    assert not ending.hurried.is_set()
