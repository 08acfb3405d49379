import os
import signal

import pytest

from deferfs.measure.host.interrupts import Interrupts, uninterrupted


def send(number: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_interrupts_and_the_next_are_answered(number: int) -> None:
    said: list[str] = []
    interrupts = Interrupts(said.append)
    with interrupts.installed():
        with pytest.raises(KeyboardInterrupt):
            send(number)
        send(number)
        send(signal.SIGTERM)
    assert interrupts.number == number
    assert len(said) == 2


def test_a_protected_step_is_not_interrupted() -> None:
    interrupts = Interrupts(lambda _: None)
    done = []
    caught = False
    with interrupts.installed():
        try:
            with uninterrupted():
                send()
                done.append("all")
        except KeyboardInterrupt:
            caught = True
    assert caught
    assert done == ["all"]


def test_afterwards_signals_are_what_they_were() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Interrupts(lambda _: None).installed():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
