import subprocess
import sys

import trio
import trio.testing

from deferfs.mount import heap

PROGRAM = """
from deferfs.mount import heap
from deferfs.mount.resident import resident
print(heap.configure())
buffers = [bytearray(b"x") * 100_000 for _ in range(400)]
above = bytearray(b"x") * 100_000
del buffers
before = resident().now_bytes
print(heap.trim())
print(before - resident().now_bytes)
"""


def test_what_is_free_in_the_middle_of_the_heap_goes_back_to_the_kernel() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=True, stdout=subprocess.PIPE, text=True)
    configured, trimmed, given_back = done.stdout.split()
    assert (configured, trimmed) == ("True", "True")
    assert int(given_back) > 20 << 20


async def test_the_heap_is_trimmed_once_in_each_pause(autojump_clock: trio.testing.MockClock) -> None:
    events = 0
    trims: list[int] = []
    trimmed = trio.Event()

    def trim() -> None:
        trims.append(events)
        trio.from_thread.run_sync(trimmed.set)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(heap.trim_when_idle, lambda: events, trim)
        await trio.sleep(10 * heap.IDLE_SECONDS)
        assert trims == [], "nothing has happened yet"
        for _ in range(20):
            events += 1
            await trio.sleep(heap.IDLE_SECONDS / 2)
        assert not trimmed.is_set(), "requests kept coming"
        await trimmed.wait()
        await trio.sleep(10 * heap.IDLE_SECONDS)
        assert trims == [20]
        nursery.cancel_scope.cancel()
