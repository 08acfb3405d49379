"""Access times that are owed: written together, along with other changes, exactly, and not for inodes that are gone."""

from __future__ import annotations

import pytest

from deferfs.device.record import RecordingDevice
from deferfs.limits import FETCH_BYTES_MAX, KIB
from deferfs.store.plan import Plan
from deferfs.volume import attributes
from deferfs.volume.driver import Driver
from tests.unit.volumes import (
    assert_sound,
    fresh_device,
    fresh_driver,
    look_up,
    make,
    open_driver,
    remounted,
    unlink,
)

COUNT = 40


@pytest.fixture
def driver() -> Driver:
    return fresh_driver()


def owing(driver: Driver, count: int = COUNT) -> list[int]:
    """Files that owe an access time each, 1,000,000 ns and their number, and are not in core."""
    inos = []
    for number in range(count):
        ino = make(driver, b"f%d" % number)
        driver.volume.lookup_count(look_up(driver, b"f%d" % number))
        driver.volume.inodes.table[ino].lazy_atime = 1_000_000 + ino
        driver.forget(ino, 1)
        inos.append(ino)
    driver.commit()
    driver.checkpoint()
    driver.reclaim(1 << 20)
    assert driver.volume.inodes.debts.count == count
    assert not driver.volume.inodes.table
    return inos


def test_debts_of_one_block_are_one_update(driver: Driver) -> None:
    inos = owing(driver)
    per = driver.volume.store.fmt.inodes_per_block
    driver.pay()
    assert driver.volume.repayment.blocks_total == len({ino // per for ino in inos})
    assert len(driver.volume.store.journal.running.images) == driver.volume.repayment.blocks_total
    assert driver.volume.inodes.debts.count == 0
    driver = remounted(driver)
    assert [look_up(driver, b"f%d" % n).atime for n in range(COUNT)] == [1_000_000 + ino for ino in inos]
    assert_sound(driver)


def test_a_debt_is_written_and_settled_once(driver: Driver) -> None:
    inos = owing(driver)
    fmt = driver.volume.store.fmt
    first = fmt.first_in_table_block(inos[-1])
    among = [ino for ino in inos if fmt.first_in_table_block(ino) == first]
    plan = driver.volume.store.plan(reserve=True)
    driver.volume.repayment.pay(plan, first)
    assert len(plan.on_apply) == 2, "the settlement of all debts, and the count of blocks"
    plan.apply()
    assert driver.volume.inodes.debts.count == len(inos) - len(among)
    assert driver.volume.inodes.debts.paid_total == len(among)


class CountedReads(RecordingDevice):
    reads = 0

    def read(self, offset: int, length: int) -> bytes:
        self.reads += 1
        return super().read(offset, length)


@pytest.mark.parametrize("count", [2 * COUNT, 10 * COUNT])
def test_what_is_owed_is_durable_after_as_many_requests_as_the_manual_says(count: int) -> None:
    """docs/reclaim.md, "Access times owed"."""
    device = CountedReads(fresh_device())
    driver = open_driver(device)
    inos = owing(driver, count)
    fmt, journal = driver.volume.store.fmt, driver.volume.store.journal
    blocks = {ino // fmt.inodes_per_block for ino in inos}
    driver.volume.store.cache.shrink(1 << 30)
    device.clear()
    device.reads, committed = 0, journal.committed_tid
    driver.drive(driver.engine.payment.sweep(late=True))
    driver.write_back()
    assert journal.running.empty and not driver.volume.inodes.debts.count
    commits = journal.committed_tid - committed
    assert 1 <= commits <= 1 + len(blocks) // (journal.transaction_blocks_max // 2)
    window = FETCH_BYTES_MAX // fmt.block_size
    assert device.reads <= len({block // window for block in blocks}) < len(blocks)
    assert len(device.records) <= len(blocks) / fmt.tags_per_descriptor + 3 * commits


def visits(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The blocks that are paid from now on, by their first inodes."""
    visited: list[int] = []
    pay = driver.volume.repayment.pay

    def visit(plan: Plan, first: int) -> None:
        visited.append(first)
        pay(plan, first)

    monkeypatch.setattr(driver.volume.repayment, "pay", visit)
    return visited


def test_each_block_is_visited_once(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    inos = owing(driver)
    visited = visits(driver, monkeypatch)
    driver.pay()
    assert sorted(visited) == sorted({driver.volume.store.fmt.first_in_table_block(ino) for ino in inos})


def test_an_update_of_the_block_takes_along_what_its_other_inodes_owe(driver: Driver) -> None:
    inos = owing(driver)
    per = driver.volume.store.fmt.inodes_per_block
    driver.run(attributes.setattr, driver.volume, inos[0], mode=0o600)
    beside = [ino for ino in inos if ino // per == inos[0] // per]
    assert not any(driver.volume.inodes.debts.owes(ino) for ino in beside[1:])
    assert driver.volume.repayment.blocks_total == 0
    assert [look_up(driver, b"f%d" % n).atime for n in range(1, len(beside))] == [1_000_000 + i for i in beside[1:]]


def test_a_payment_takes_along_what_is_in_core() -> None:
    """So that the block is written once for all that its inodes owe."""
    driver = fresh_driver(block_size=4 * KIB)
    inos = owing(driver)
    fmt, inodes = driver.volume.store.fmt, driver.volume.inodes
    first = fmt.first_in_table_block(inos[COUNT // 2])
    held, idle, *rest = [ino for ino in inos if fmt.first_in_table_block(ino) == first]
    names = {ino: b"f%d" % number for number, ino in enumerate(inos)}
    for ino in (held, idle):
        driver.volume.lookup_count(look_up(driver, names[ino]))
    driver.forget(idle, 1)
    driver.pay_block(first)
    assert rest
    assert [inodes.table[ino].lazy_atime for ino in (held, idle)] == [0, 0]
    blocks = driver.volume.repayment.blocks_total
    driver.forget(held, 1)
    driver.reclaim(1 << 20)
    assert (len(inodes.table), driver.volume.repayment.blocks_total) == (0, blocks)
    again = remounted(driver)
    assert [look_up(again, names[ino]).atime for ino in (held, idle)] == [1_000_000 + held, 1_000_000 + idle]


@pytest.mark.parametrize("used", [False, True])
def test_a_block_that_was_only_paid_is_evicted_before_those_that_operations_use(driver: Driver, *, used: bool) -> None:
    """Once it is home. Memory for it would be taken from inodes, which owe again when they leave core."""
    inos = owing(driver, 200)  # the first blocks of the table are never evicted
    store = driver.volume.store
    first = store.fmt.first_in_table_block(inos[-1])
    address = store.inodes.locate(Plan(store), first)[0]
    look_up(driver, b"f100")  # in another block
    driver.pay_block(first)
    if used:
        look_up(driver, b"f%d" % (len(inos) - 1))
    driver.commit()
    driver.bring_home()
    assert store.cache.entries[address].holds == 0
    assert (next(iter(store.cache.evictable)) == address) is not used


def test_a_window_is_paid_as_a_whole_though_only_some_inodes_have_left_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of every second block are in core still."""
    driver = fresh_driver(block_size=4 * KIB)
    inos = owing(driver, 200)
    fmt, inodes = driver.volume.store.fmt, driver.volume.inodes
    blocks = sorted({fmt.first_in_table_block(ino) for ino in inos})
    for number, ino in enumerate(inos):
        if blocks.index(fmt.first_in_table_block(ino)) % 2:
            driver.volume.lookup_count(look_up(driver, b"f%d" % number))
    assert 0 < inodes.debts.count < len(inos)
    visited = visits(driver, monkeypatch)
    driver.pay()
    assert visited == blocks
    assert not any(inode.lazy_atime for inode in inodes.table.values())
    again = remounted(driver)
    assert [look_up(again, b"f%d" % number).atime for number in range(200)] == [1_000_000 + ino for ino in inos]


def test_a_damaged_record_in_core_does_not_fail_the_payment() -> None:
    driver = fresh_driver(block_size=4 * KIB)
    inos = owing(driver)
    store = driver.volume.store
    first = store.fmt.first_in_table_block(inos[COUNT // 2])
    among = [ino for ino in inos if store.fmt.first_in_table_block(ino) == first]
    driver.volume.lookup_count(look_up(driver, b"f%d" % (COUNT // 2)))
    address, slot = driver.run(lambda plan: store.inodes.locate(plan, inos[COUNT // 2]))
    store.cache.entries[address].obj.records[slot] = bytes(512)  # type: ignore[attr-defined]
    driver.pay_block(first)
    assert not any(driver.volume.inodes.debts.owes(ino) for ino in among)
    assert driver.volume.inodes.table[inos[COUNT // 2]].lazy_atime


def test_a_debt_is_seen_before_it_is_paid(driver: Driver) -> None:
    inos = owing(driver)
    record = look_up(driver, b"f3")
    assert record.atime < 1_000_000
    assert attributes.atime_ns(driver.volume, record) == 1_000_000 + inos[3]


def test_an_inode_back_in_core_takes_the_debt_over(driver: Driver) -> None:
    inos = owing(driver)
    driver.volume.lookup_count(look_up(driver, b"f3"))
    assert driver.volume.inodes.table[inos[3]].lazy_atime == 1_000_000 + inos[3]
    assert not driver.volume.inodes.debts.owes(inos[3])
    driver.forget(inos[3], 1)
    assert look_up(remounted(driver), b"f3").atime == 1_000_000 + inos[3]


def test_a_time_that_is_set_meanwhile_wins(driver: Driver) -> None:
    inos = owing(driver)
    driver.run(attributes.setattr, driver.volume, inos[3], atime_ns=5)
    driver.pay()
    assert look_up(driver, b"f3").atime == 5


def test_a_later_time_on_the_disk_stays(driver: Driver) -> None:
    inos = owing(driver)
    driver.volume.inodes.debts.add(inos[3], look_up(driver, b"f3").generation, -7)
    before = look_up(driver, b"f3").atime
    driver.pay()
    assert (look_up(driver, b"f3").atime, driver.volume.inodes.debts.count) == (before, 0)


def test_deleted_files_owe_nothing(driver: Driver) -> None:
    """Nor does the next inode of that number."""
    inos = owing(driver)
    unlink(driver, b"f3")
    driver.collect()
    assert not driver.volume.inodes.debts.owes(inos[3])
    debts = driver.volume.inodes.debts
    debts.add(inos[3], 12345, 1_000_000)  # as it would be, had the debt outlived its inode
    reused = make(driver, b"next")
    assert reused == inos[3]
    before = look_up(driver, b"next").atime
    driver.pay()
    assert (debts.count, look_up(driver, b"next").atime) == (0, before)


def test_debts_of_a_block_that_cannot_be_read_go_back_into_core(driver: Driver) -> None:
    inos = owing(driver)
    address = driver.run(lambda plan: driver.volume.store.inodes.locate(plan, inos[3])[0])
    driver.volume.store.cache.drop(address)
    size = driver.volume.store.fmt.block_size
    good = driver.device.read(address * size, size)
    driver.device.write(address * size, bytes(size))
    driver.pay()
    assert driver.volume.inodes.debts.count == 0
    assert driver.volume.inodes.table[inos[3]].lazy_atime == 1_000_000 + inos[3]
    driver.volume.store.cache.drop(address)
    driver.device.write(address * size, good)
    driver.collect()
    assert look_up(driver, b"f3").atime == 1_000_000 + inos[3]


def test_a_full_table_leaves_inodes_in_core(driver: Driver) -> None:
    debts = driver.volume.inodes.debts
    debts.count_max = 10
    inos = []
    for number in range(COUNT):
        inos.append(make(driver, b"f%d" % number))
        driver.volume.lookup_count(look_up(driver, b"f%d" % number))
        driver.volume.inodes.table[inos[-1]].lazy_atime = 1_000_000 + inos[-1]
        driver.forget(inos[-1], 1)
    driver.reclaim(1 << 20)
    assert (debts.count, len(driver.volume.inodes.table), len(driver.volume.inodes.lru)) == (10, 30, 30)
    again = remounted(driver)
    assert [look_up(again, b"f%d" % n).atime for n in range(COUNT)] == [1_000_000 + ino for ino in inos]


def test_an_unmount_pays_by_block_what_does_not_fit_into_the_table(driver: Driver) -> None:
    inos = []
    for number in range(COUNT):
        inos.append(make(driver, b"f%d" % number))
        driver.volume.lookup_count(look_up(driver, b"f%d" % number))
        driver.volume.inodes.table[inos[-1]].lazy_atime = 1_000_000 + inos[-1]
    driver.volume.inodes.debts.count_max = 10
    before = driver.volume.gc.statistics().queued_total
    driver.close()
    assert driver.volume.gc.statistics().queued_total == before
    assert driver.volume.inodes.debts.paid_total == COUNT
    driver = open_driver(driver.device)
    assert [look_up(driver, b"f%d" % n).atime for n in range(COUNT)] == [1_000_000 + ino for ino in inos]
    assert_sound(driver)
