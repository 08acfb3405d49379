"""Reads, writes and truncates of one file against a bytearray."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from deferfs.volume import files
from tests.examples import examples
from tests.unit.volumes import (
    assert_sound,
    free_blocks,
    fresh_driver,
    make,
    record,
    remounted,
    reopened,
    unlink,
)

SIZE_MAX = 200_000
edges = st.sampled_from([0, 1, 383, 384, 385, 1023, 1024, 1025, 2048, 4096, 65_536, 66_000, 131_072])
offsets = edges | st.integers(0, SIZE_MAX - 20_000)
lengths = st.sampled_from([1, 10, 384, 1024, 4096]) | st.integers(1, 20_000)
steps = st.one_of(
    st.tuples(st.just("write"), offsets, lengths),
    st.tuples(st.just("append"), st.just(0), lengths),
    st.tuples(st.just("truncate"), offsets, st.just(0)),
    st.tuples(st.just("read"), offsets, lengths),
    st.tuples(st.sampled_from(["commit", "checkpoint", "trim", "reopen", "remount", "evict"]), st.just(0), st.just(0)),
)


@settings(max_examples=examples(60))
@given(st.sampled_from([1024, 4096]), st.lists(steps, max_size=25))
def test_a_file_is_an_array_of_bytes(block_size: int, actions: list[tuple[str, int, int]]) -> None:
    driver = fresh_driver(block_size=block_size)
    free = free_blocks(driver)
    ino = make(driver, b"file")
    model = bytearray()
    for number, (action, offset, length) in enumerate(actions):
        if action in ("write", "append"):
            at = offset if action == "write" else len(model)
            if at + length > SIZE_MAX:
                continue
            data = bytes([number + 1]) * length
            assert driver.write(ino, at, data) == length
            model.extend(bytes(max(0, at - len(model))))
            model[at : at + length] = data
        elif action == "truncate":
            driver.truncate(ino, offset)
            model = model[:offset].ljust(offset, b"\0")
        elif action == "read":
            assert driver.read(ino, offset, length) == model[offset : offset + length]
        elif action == "commit":
            driver.commit()
        elif action == "checkpoint":
            driver.commit()
            driver.checkpoint()
            driver.volume.store.cache.shrink(1 << 30)
        elif action == "trim":
            driver.run(files.trim, driver.volume, ino)
        elif action == "evict":
            driver.volume.lookup_count(record(driver, ino))
            driver.forget(ino, 1)
            driver.reclaim(1 << 20)
            driver.collect()
            assert not record(driver, ino).flags
        elif action == "reopen":
            driver.fsync(ino)
            driver = reopened(driver)
        else:
            driver = remounted(driver)
        assert record(driver, ino).size == len(model)
        assert driver.read(ino, 0, SIZE_MAX) == model
    assert_sound(driver)
    unlink(driver, b"file")
    driver.collect()
    driver.commit()
    assert free_blocks(driver) == free
