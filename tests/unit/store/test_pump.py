from __future__ import annotations

from collections.abc import Generator

import pytest

from deferfs.store.pump import Pump, pump


def job(log: list[str]) -> Generator[int, str | None, str]:
    try:
        log.append(str((yield 1)))
        try:
            yield 2
        except OSError as error:
            log.append(str(error))
        return "done"
    finally:
        log.append("left")


def test_a_request_is_answered_or_fails() -> None:
    log: list[str] = []
    running: Pump[int, str, str] = Pump(job(log))
    assert running.resume() == 1
    running.answer("one")
    assert running.resume() == 2
    running.fail(OSError("no"))
    assert running.resume() is None
    assert running.done
    assert running.result == "done"
    assert log == ["one", "no", "left"]


def test_an_answer_is_given_once() -> None:
    log: list[str] = []
    running: Pump[int, str, str] = Pump(job(log))
    running.resume()
    running.answer("one")
    running.resume()
    assert running.resume() is None
    assert log == ["one", "left"]


def test_an_error_of_a_job_comes_out_and_ends_it() -> None:
    running: Pump[int, str, str] = Pump(job([]))
    running.resume()
    running.fail(KeyError("other"))
    with pytest.raises(KeyError):
        running.resume()
    assert running.done


def test_a_job_that_is_given_up_leaves_what_it_holds() -> None:
    log: list[str] = []
    running: Pump[int, str, str] = Pump(job(log))
    running.resume()
    running.close()
    assert log == ["left"]


def test_an_io_error_is_the_job_s_business_and_any_other_ends_the_loop() -> None:
    log: list[str] = []

    def perform(request: int) -> str:
        if request == 2:
            raise OSError("no")
        return "one"

    assert pump(job(log), perform) == "done"
    assert log == ["one", "no", "left"]

    def broken(request: int) -> str:
        raise KeyError(request)

    with pytest.raises(KeyError):
        pump(job([]), broken)
