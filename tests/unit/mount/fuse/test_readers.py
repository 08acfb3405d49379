import os
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from deferfs.mount.fuse.readers import AT_ONCE_MAX, ReaderLock, RequestWaiter, RunnableTasks
from deferfs.mount.runtime.busy_poll import BusyPoll


@pytest.fixture
async def lock():  # type: ignore[no-untyped-def]
    made = ReaderLock()
    trio.lowlevel.add_instrument(made)
    yield made
    trio.lowlevel.remove_instrument(made)


async def test_a_lock_that_its_holder_takes_back_at_once_stays_with_it(lock: ReaderLock, nursery: trio.Nursery) -> None:
    order: list[str] = []

    async def other() -> None:
        async with lock:
            order.append("other")

    async with lock:
        nursery.start_soon(other)
        await trio.testing.wait_all_tasks_blocked()
    async with lock:
        order.append("first again")
        await trio.testing.wait_all_tasks_blocked()
    await trio.testing.wait_all_tasks_blocked()
    assert order == ["first again", "other"]


async def test_a_lock_is_handed_on_when_its_holder_waits_elsewhere(lock: ReaderLock, nursery: trio.Nursery) -> None:
    got = trio.Event()

    async def other() -> None:
        async with lock:
            got.set()

    async with lock:
        nursery.start_soon(other)
        await trio.testing.wait_all_tasks_blocked()
    with trio.fail_after(5):
        await got.wait()


async def test_a_lock_is_taken_by_one_task_after_the_other(lock: ReaderLock) -> None:
    inside = 0
    turns = 0

    async def reader() -> None:
        nonlocal inside, turns
        for _ in range(20):
            async with lock:
                inside += 1
                assert inside == 1
                await trio.lowlevel.checkpoint()
                inside -= 1
                turns += 1
            await trio.lowlevel.checkpoint()

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(reader)
    assert turns == 100


async def test_a_waiter_that_gave_up_is_passed_over(lock: ReaderLock, nursery: trio.Nursery) -> None:
    got = trio.Event()

    async def impatient(scope: trio.CancelScope) -> None:
        with scope:
            async with lock:
                pytest.fail("it was cancelled")

    async def patient() -> None:
        async with lock:
            got.set()

    scope = trio.CancelScope()
    async with lock:
        nursery.start_soon(impatient, scope)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(patient)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
    with trio.fail_after(5):
        await got.wait()


# --- waiting for requests ---


class Pipe:
    """Stands for the FUSE descriptor: a byte is a request."""

    def __init__(self) -> None:
        self.fd, self._sender = os.pipe()

    def send(self) -> None:
        os.write(self._sender, b".")

    def take(self) -> None:
        os.read(self.fd, 1)

    def close(self) -> None:
        os.close(self.fd)
        os.close(self._sender)


class LookCounter(BusyPoll):
    """Sends a request on the second look, as a client would while the reader looks."""

    def __init__(self, pipe: Pipe) -> None:
        super().__init__(1000, processors=lambda: 2)
        self.waited(1)
        self._pipe = pipe
        self.answers = True
        self.looks = 0

    def clock_of_test(self) -> int:
        self.looks += 1
        if self.looks == 2 and self.answers:
            self._pipe.send()
        return self.looks


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close()


@pytest.fixture
def busy_poll(pipe: Pipe) -> LookCounter:
    made = LookCounter(pipe)
    made.clock = made.clock_of_test
    return made


@pytest.fixture
async def runnable():  # type: ignore[no-untyped-def]
    made = RunnableTasks()
    trio.lowlevel.add_instrument(made)
    await trio.testing.wait_all_tasks_blocked()
    yield made
    trio.lowlevel.remove_instrument(made)


@pytest.fixture
def waiter(busy_poll: LookCounter, runnable: RunnableTasks) -> RequestWaiter:
    return RequestWaiter(busy_poll, runnable)


async def test_a_request_that_is_there_is_taken_in_the_same_step(waiter: RequestWaiter, pipe: Pipe) -> None:
    pipe.send()
    with pytest.raises(StopIteration):
        waiter.wait_readable(pipe.fd).send(None)


async def test_a_request_that_comes_within_the_window_is_taken_in_the_same_step(
    waiter: RequestWaiter, pipe: Pipe, busy_poll: LookCounter
) -> None:
    with pytest.raises(StopIteration):
        waiter.wait_readable(pipe.fd).send(None)
    assert busy_poll.statistics().hits_total == 1


async def test_readers_do_not_poll_while_another_task_is_runnable(
    waiter: RequestWaiter, pipe: Pipe, busy_poll: LookCounter, nursery: trio.Nursery
) -> None:
    async def other() -> None:
        assert busy_poll.looks == 0
        pipe.send()

    nursery.start_soon(other)
    with trio.fail_after(5):
        await waiter.wait_readable(pipe.fd)
    found = busy_poll.statistics()
    assert found.hits_total == found.misses_total == 0


async def test_readers_sleep_when_no_request_comes(
    waiter: RequestWaiter, pipe: Pipe, busy_poll: LookCounter, nursery: trio.Nursery
) -> None:
    async def reader() -> None:
        await waiter.wait_readable(pipe.fd)

    busy_poll.answers = False
    async with trio.open_nursery() as readers:
        readers.start_soon(reader)
        await trio.testing.wait_all_tasks_blocked()
        assert busy_poll.statistics().misses_total == 1
        pipe.send()


async def test_other_tasks_get_their_turn_in_a_stream_of_requests(
    waiter: RequestWaiter, pipe: Pipe, nursery: trio.Nursery
) -> None:
    ran = trio.Event()
    pipe.send()

    async def other() -> None:
        ran.set()

    nursery.start_soon(other)
    for _ in range(AT_ONCE_MAX):
        assert not ran.is_set()
        await waiter.wait_readable(pipe.fd)
    await waiter.wait_readable(pipe.fd)
    assert ran.is_set()


async def test_closing_reaches_a_reader_that_let_others_run(
    waiter: RequestWaiter, pipe: Pipe, nursery: trio.Nursery
) -> None:
    pipe.send()
    for _ in range(AT_ONCE_MAX):
        await waiter.wait_readable(pipe.fd)
    pipe.take()

    async def terminate() -> None:
        waiter.notify_closing(pipe.fd)

    nursery.start_soon(terminate)
    with trio.fail_after(5), pytest.raises(trio.ClosedResourceError):
        await waiter.wait_readable(pipe.fd)


async def test_runnable_tasks_are_counted(runnable: RunnableTasks, nursery: trio.Nursery) -> None:
    async def other() -> None:
        seen.append(runnable.count)

    seen: list[int] = []
    assert runnable.count == 0
    for _ in range(3):
        nursery.start_soon(other)
    assert runnable.count == 3
    await trio.testing.wait_all_tasks_blocked()
    assert seen == [2, 1, 0]
    assert runnable.count == 0
