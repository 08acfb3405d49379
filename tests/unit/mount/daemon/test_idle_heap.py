import trio
import trio.testing

from deferfs.mount.daemon.idle_heap import IDLE_SECONDS, trim_when_idle


async def test_the_heap_is_trimmed_once_in_each_pause(autojump_clock: trio.testing.MockClock) -> None:
    events = 0
    trims: list[int] = []
    trimmed = trio.Event()

    def trim() -> None:
        trims.append(events)
        trio.from_thread.run_sync(trimmed.set)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trim_when_idle, lambda: events, trim)
        await trio.sleep(10 * IDLE_SECONDS)
        assert trims == [], "nothing has happened yet"
        for _ in range(20):
            events += 1
            await trio.sleep(IDLE_SECONDS / 2)
        assert not trimmed.is_set(), "requests kept coming"
        await trimmed.wait()
        await trio.sleep(10 * IDLE_SECONDS)
        assert trims == [20]
        nursery.cancel_scope.cancel()
