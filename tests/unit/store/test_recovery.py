from __future__ import annotations

import gc
import random
import tracemalloc

import pytest
from bitarray import bitarray

from deferfs.device import FailingDevice, Fault, MemoryDevice, Request
from deferfs.errors import DeviceError, ImageError
from deferfs.limits import JOURNAL_BLOCKS_MIN, MIB
from deferfs.ondisk.format import SUPERBLOCK_BYTES, SUPERBLOCK_OFFSETS
from deferfs.ondisk.journal import Commit, Tag, decode_tags, encode_commit, encode_descriptor, peek
from deferfs.ondisk.superblock import STATE_CLEAN
from deferfs.store.io import Flush, Read, Write, perform, run_job
from deferfs.store.recovery import Transaction, _NewestImages, read_log, read_superblock, recover, superblock_offset
from deferfs.volume.driver import Driver
from tests.unit.store.journals import fill, free
from tests.unit.volumes import (
    BLOCK_SIZES,
    fresh_device,
    fresh_driver,
    look_up,
    make,
    make_file,
    names,
    open_driver,
    record,
    reopened,
    settle,
    snapshot_of,
    unlink,
)


def files(driver: Driver) -> dict[bytes, bytes]:
    found = {}
    for name in names(driver):
        inode = look_up(driver, name)
        found[name] = driver.read(inode.ino, 0, inode.size)
    return found


def log_positions(driver: Driver, tid: int) -> list[int]:
    """Log blocks of the transaction that are journal records (not images), as indexes into the log."""
    journal, fmt = driver.volume.store.journal, driver.volume.store.fmt
    found = []
    for index in range(journal.blocks):
        header = peek(fmt, driver.device.read((journal.start + index) * 1024, 1024))
        if header is not None and header[1] == tid:
            found.append(index)
    return found


def damaged(driver: Driver, log_index: int, at: int = 40) -> MemoryDevice:
    """A copy of the image with one byte of one log block flipped."""
    image = bytearray(snapshot_of(driver))
    image[(driver.volume.store.journal.start + log_index) * 1024 + at] ^= 0xFF
    return MemoryDevice.from_bytes(image)


def test_recovery_restores_committed_blocks_and_nothing_else() -> None:
    driver = fresh_driver()
    make_file(driver, b"inline", b"small")
    make_file(driver, b"blocks", b"x" * 5000)
    driver.commit()
    expected = files(driver)
    make_file(driver, b"later", b"lost" * 500)
    unlink(driver, b"inline")
    assert files(reopened(driver)) == expected


def test_a_clean_image_is_not_replayed() -> None:
    driver = fresh_driver()
    make_file(driver, b"file", b"data")
    driver.close()
    device = MemoryDevice.from_bytes(snapshot_of(driver))
    superblock = run_job(device, read_superblock(device.size))
    assert superblock.clean
    journal = driver.volume.store.journal
    device.write(journal.start * 1024, b"\xff" * journal.blocks * 1024)
    assert files(open_driver(device)) == {b"file": b"data"}


def test_every_state_over_many_laps_of_a_small_log() -> None:
    """Stale laps are ignored, and the live ones found wherever they start."""
    driver = fresh_driver(journal_blocks=256)
    journal = driver.volume.store.journal
    chance = random.Random(9)
    laps = 0
    for step in range(150):
        name = b"f%d" % chance.randrange(12)
        if name in names(driver):
            unlink(driver, name)
            driver.collect()
        else:
            make_file(driver, name, chance.randbytes(chance.choice([10, 3000, 30_000])))
        before = journal.head
        driver.commit()
        laps += journal.head < before
        if step % 5 == 0:
            assert files(reopened(driver)) == files(driver)
        if step % 7 == 0:
            driver.checkpoint()
    assert laps >= 3


def test_a_freed_metadata_block_is_not_replayed_over_its_next_use() -> None:
    driver = fresh_driver()
    store = driver.volume.store
    made = fill(store, 8)
    driver.commit()
    free(store, made)
    driver.commit()
    ino = make(driver, b"file")
    store.space.cursor = made[0]
    driver.write(ino, 0, b"d" * 8 * 1024)
    assert record(driver, ino).entries[0][1][:8] == made[0].to_bytes(8, "little")
    driver.commit()
    assert files(reopened(driver)) == {b"file": b"d" * 8192}


def test_a_block_revoked_and_journaled_again_is_replayed() -> None:
    driver = fresh_driver()
    store = driver.volume.store
    made = fill(store, 2)
    driver.commit()
    free(store, made)
    driver.commit()
    store.space.cursor = made[0]
    assert fill(store, 2) == made
    driver.commit()
    content = run_job(driver.device, read_log(store.superblock))
    assert content.transactions == 3
    written = [r for r in requests_of_recovery(snapshot_of(driver), store.superblock) if isinstance(r, Write)]
    homes = {write.offset // 1024 + at for write in written for at in range(len(write.buffers))}
    assert set(made) <= homes


def history(count: int = 3) -> Driver:
    """Transactions that each add a file; the first two of the log are older."""
    driver = fresh_driver()
    for number in range(count):
        make_file(driver, b"f%d" % number, b"x" * 2000)
        driver.commit()
    return driver


def test_a_torn_last_transaction_is_an_interrupted_commit() -> None:
    driver = history()
    journal = driver.volume.store.journal
    last = log_positions(driver, journal.committed_tid)
    for index in range(last[0], last[-1] + 1):
        again = open_driver(damaged(driver, index))
        assert names(again) == sorted(names(again))[:2] or len(names(again)) == 2
        assert again.volume.store.journal.running.tid > journal.committed_tid
        make(again, b"after")
        again.commit()
        assert len(names(reopened(again))) == 3


def test_a_damaged_transaction_with_valid_ones_behind_is_corruption() -> None:
    driver = history()
    tid = driver.volume.store.journal.committed_tid
    for broken in (tid - 1, tid - 2):
        positions = log_positions(driver, broken)
        for index in range(positions[0], positions[-1] + 1):
            device = damaged(driver, index)
            before = device.snapshot()
            with pytest.raises(ImageError, match=f"transaction {broken} is damaged"):
                open_driver(device)
            assert device.snapshot() == before, "nothing is written before the log is judged"


def test_the_commit_record_vouches_for_the_very_descriptors() -> None:
    """A descriptor that is valid by itself, but not the one that was committed."""
    driver = history(1)
    journal, fmt = driver.volume.store.journal, driver.volume.store.fmt
    first = log_positions(driver, journal.committed_tid)[0]
    offset = (journal.start + first) * 1024
    block = driver.device.read(offset, 1024)
    header = peek(fmt, block)
    assert header is not None
    _, tid, index, count = header
    tags = decode_tags(fmt, block, count)
    driver.device.write(offset, encode_descriptor(fmt, tid, index, [tag._replace(home=tag.home + 1) for tag in tags]))
    content = run_job(driver.device, read_log(driver.volume.store.superblock))
    assert (content.transactions, len(content.newest)) == (0, 0)


def test_new_transactions_are_numbered_above_the_remains_of_an_interrupted_commit() -> None:
    driver = history()
    journal = driver.volume.store.journal
    last = log_positions(driver, journal.committed_tid)
    device = damaged(driver, last[-1])
    superblock = run_job(device, read_superblock(device.size))
    renewed, content = run_job(device, recover(superblock, 5))
    assert content.newest_tid_seen == journal.committed_tid
    assert (renewed.tail_tid, renewed.journal_tail) == (journal.committed_tid + 1, 0)


def test_the_order_of_recovery() -> None:
    driver = history()
    superblock = driver.volume.store.superblock
    requests = []
    job = recover(superblock, 5)
    answer: bytes | None = None
    try:
        while True:
            requests.append(job.send(answer))
            answer = perform(driver.device, requests[-1])
    except StopIteration:
        pass
    order = [type(request) for request in requests]
    judged = order.index(Write)
    log_bytes = superblock.journal_blocks * superblock.block_size
    read = sum(request.length for request in requests[:judged] if isinstance(request, Read))
    assert read >= log_bytes, "all of the log is judged before anything is written home"
    assert set(order[:judged]) == {Read}
    assert set(order[judged:-3]) <= {Read, Write}
    assert order[-3:] == [Flush, Write, Flush]
    assert requests[-2].offset in (0, 65536)  # type: ignore[union-attr]


def test_recovery_cut_off_anywhere_converges() -> None:
    driver = history(4)
    image = snapshot_of(driver)
    expected = files(driver)
    superblock = driver.volume.store.superblock
    total = sum(1 for r in requests_of_recovery(image, superblock) if not isinstance(r, Read))
    for cut in range(total + 1):
        device = MemoryDevice.from_bytes(image)
        done = 0
        job = recover(superblock, 5)
        answer: bytes | None = None
        while done < cut:
            request = job.send(answer)
            answer = perform(device, request)
            done += not isinstance(request, Read)
        assert files(open_driver(device)) == expected, cut


def requests_of_recovery(image: bytes, superblock: object) -> list[object]:
    device = MemoryDevice.from_bytes(image)
    requests: list[object] = []
    job = recover(superblock, 5)  # type: ignore[arg-type]
    answer: bytes | None = None
    try:
        while True:
            request = job.send(answer)
            requests.append(request)
            answer = perform(device, request)
    except StopIteration:
        return requests


def test_an_image_shorter_than_it_says_is_refused() -> None:
    device = fresh_device()
    short = MemoryDevice.from_bytes(device.snapshot()[:-1024])
    with pytest.raises(ImageError, match="truncated"):
        run_job(short, read_superblock(short.size))


@pytest.mark.parametrize("size", [0, 100, 511, 512, 65536, 70000])
def test_a_device_without_room_for_superblocks_is_no_image(size: int) -> None:
    with pytest.raises(ImageError, match="not a deferfs image"):
        run_job(MemoryDevice(size), read_superblock(size))


@pytest.mark.parametrize("broken", [0, 65536])
def test_one_superblock_is_enough(broken: int) -> None:
    driver = fresh_driver()
    make_file(driver, b"file", b"data")
    settle(driver)
    driver.close()
    device = MemoryDevice.from_bytes(snapshot_of(driver))
    device.write(broken, b"\xff" * 512)
    assert files(open_driver(device)) == {b"file": b"data"}


def logged(home: int) -> MemoryDevice:
    """An image whose log holds one transaction with an image for block `home`."""
    driver = fresh_driver()
    fmt, superblock = driver.volume.store.fmt, driver.volume.store.superblock
    image = b"\xee" * fmt.block_size
    tid = superblock.tail_tid
    descriptor = encode_descriptor(fmt, tid, 0, [Tag(home, fmt.checksum(tid, image))])
    blocks = [descriptor, image, encode_commit(fmt, tid, 2, Commit(2, fmt.checksum(0, descriptor), 1))]
    device = MemoryDevice.from_bytes(snapshot_of(driver))
    device.writev((superblock.journal_start + superblock.journal_tail) * fmt.block_size, blocks)
    return device


@pytest.mark.parametrize("home", ["superblock", "journal", "past the end"])
def test_an_image_for_where_no_journaled_block_lives_is_refused_before_anything_is_written(home: str) -> None:
    superblock = fresh_driver().volume.store.superblock
    device = logged({"superblock": 0, "journal": superblock.journal_start + 5, "past the end": superblock.blocks}[home])
    before = device.snapshot()
    with pytest.raises(ImageError, match="which cannot hold a journaled block"):
        run_job(device, recover(run_job(device, read_superblock(device.size)), 1))
    assert device.snapshot() == before


def test_unknown_read_only_features_allow_reading_only() -> None:
    driver = fresh_driver()
    settle(driver)
    device = MemoryDevice.from_bytes(snapshot_of(driver))
    superblock = run_job(device, read_superblock(device.size)).next(read_only_compatible=4, state=STATE_CLEAN)
    device.write(superblock_offset(superblock), superblock.encode())
    with pytest.raises(ImageError, match="only be mounted read-only"):
        open_driver(device)


# --- a disk that cannot be read in one place ---


@pytest.mark.parametrize("lost", [0, 1])
def test_a_superblock_that_cannot_be_read_is_a_lost_one(lost: int) -> None:
    driver = fresh_driver()
    make_file(driver, b"committed", b"x" * 3000)
    settle(driver)
    device = MemoryDevice.from_bytes(snapshot_of(driver))
    offset = SUPERBLOCK_OFFSETS[lost]
    failing = FailingDevice(
        device, Fault(frozenset((Request.READ,)), sticky=True, start=offset, stop=offset + SUPERBLOCK_BYTES)
    )
    assert not run_job(failing, read_superblock(failing.size)).clean
    assert files(open_driver(failing))[b"committed"] == b"x" * 3000


def test_no_superblock_can_be_read() -> None:
    device = FailingDevice(fresh_device(), Fault(frozenset((Request.READ,)), sticky=True))
    with pytest.raises(DeviceError):
        run_job(device, read_superblock(device.size))


# --- what is held in memory ---


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_the_log_streams(block_size: int) -> None:
    """Most of a log is in use, and far longer than what recovery may hold of it."""
    blocks = max(JOURNAL_BLOCKS_MIN, 32 * MIB // block_size)
    driver = fresh_driver((2 * blocks + 512) * block_size + 8 * MIB, block_size=block_size, journal_blocks=blocks)
    store = driver.volume.store
    while store.journal.space > blocks // 3:
        fill(store, blocks // 10)
        driver.commit()
    images = store.journal.used
    device, superblock = driver.device, store.superblock
    largest = 0
    job = recover(superblock, 5)
    answer: bytes | None = None
    gc.collect()
    tracemalloc.start()
    try:
        while True:
            request = job.send(answer)
            if isinstance(request, Read):
                largest = max(largest, request.length)
                answer = device.read(request.offset, request.length)
            else:
                if isinstance(request, Write):
                    largest = max(largest, sum(map(len, request.buffers)))
                answer = perform(device, request)
    except StopIteration as stop:
        content = stop.value[1]
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert content.transactions >= 3
    assert images * block_size > blocks * block_size // 2
    assert largest <= 1 * MIB
    assert peak <= 8 * MIB + 24 * images + blocks // 8


def test_many_images_of_the_same_blocks_are_made_compact_on_the_way() -> None:
    driver = fresh_driver(journal_blocks=2048)
    superblock = driver.volume.store.superblock
    newest = _NewestImages(superblock)
    newest._compact_at = 20
    home = superblock.blocks - 50
    offset = 0
    for tid in range(1, 100):
        transaction = Transaction(tid)
        for at in range(10):
            transaction.homes.append(home + at)
            transaction.offsets.append(offset + at)
        if tid == 98:
            transaction.revokes.extend([home + 3, home + 20])
        transaction.end = offset = offset + 11
        if tid == 99:
            del transaction.homes[:5], transaction.offsets[:5]
        newest.add(transaction)
    marked = newest.marks(offset).search(bitarray("1"))
    assert list(marked) == [*(97 * 11 + at for at in (0, 1, 2, 4)), *(98 * 11 + at for at in range(5, 10))]


def recover_with_an_unsteady_disk(driver: Driver) -> None:
    """The second reading of the tail gives zeros."""
    superblock = driver.volume.store.superblock
    tail = (superblock.journal_start + superblock.journal_tail) * 1024
    job = recover(superblock, 5)
    answer: bytes | None = None
    seen = 0
    while True:
        request = job.send(answer)
        assert not isinstance(request, Write)
        answer = perform(driver.device, request)
        if isinstance(request, Read) and request.offset == tail:
            seen += 1
            if seen == 2:
                answer = bytes(request.length)


def test_an_image_that_reads_otherwise_the_second_time_is_not_written() -> None:
    driver = history()
    with pytest.raises(ImageError, match="changed between two reads"):
        recover_with_an_unsteady_disk(driver)
