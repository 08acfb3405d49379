import contextlib
import os
import signal
from collections.abc import Iterator

import pytest

from deferfs.measure.host.belongings import Belongings
from deferfs.measure.host.interrupts import uninterrupted


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@contextlib.contextmanager
def thing(log: list[str], name: str, *, interrupts: str = "") -> Iterator[str]:
    if interrupts == "making":
        interrupt()
    log.append(f"made {name}")
    try:
        yield name
    finally:
        if interrupts == "taking away":
            interrupt()
        log.append(f"took away {name}")


def test_an_interrupt_waits_until_the_thing_is_known() -> None:
    log: list[str] = []
    with pytest.raises(KeyboardInterrupt), Belongings() as belongings:  # noqa: PT012
        belongings.acquire(thing(log, "a"))
        belongings.acquire(thing(log, "b", interrupts="making"))
        log.append("not reached")
    assert log == ["made a", "made b", "took away b", "took away a"]


def test_an_interrupt_waits_until_all_is_taken_away() -> None:
    log: list[str] = []
    belongings = Belongings()
    belongings.acquire(thing(log, "a"))
    belongings.acquire(thing(log, "b", interrupts="taking away"))
    with pytest.raises(KeyboardInterrupt):
        belongings.__exit__(None, None, None)
    assert log == ["made a", "made b", "took away b", "took away a"]


def test_a_failed_acquisition_releases_the_others() -> None:
    class Broken(contextlib.AbstractContextManager[None]):
        def __enter__(self) -> None:
            raise OSError("no")

        def __exit__(self, *_: object) -> None:
            log.append("took away what was never made")

    log: list[str] = []
    with pytest.raises(OSError, match="no"), Belongings() as belongings:  # noqa: PT012
        belongings.acquire(thing(log, "a"))
        belongings.acquire(Broken())
    assert log == ["made a", "took away a"]


def test_handlers_are_those_from_before() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with uninterrupted():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
