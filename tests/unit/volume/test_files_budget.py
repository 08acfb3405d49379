from deferfs.limits import KIB
from deferfs.store.plan import Plan
from tests.unit.volumes import fresh_driver, make_file


def test_an_operation_leaves_off_before_it_fills_a_small_budget() -> None:
    """However large the log is: a write into many holes, and a truncate of many extents, stage a few blocks a turn."""
    driver = fresh_driver(24 << 20, journal_blocks=12_000)
    store = driver.volume.store
    store.memory.set_limit(4 << 20)
    assert store.operation_blocks_max == 128 < store.journal.transaction_blocks_max // 2
    ino = make_file(driver, b"f", b"")
    for block in range(0, 4000, 2):
        driver.write(ino, block * KIB, b"x" * KIB)
    sizes: list[int] = []
    plan_apply = store.journal.join

    def join(plan: Plan) -> int:
        sizes.append(len(plan.staged))
        return plan_apply(plan)

    store.journal.join = join  # type: ignore[method-assign]
    driver.write(ino, 0, b"y" * 4000 * KIB)
    driver.truncate(ino, 0)
    assert len(sizes) > 2
    assert max(sizes) < 2 * store.operation_blocks_max
    assert driver.read(ino, 0, 10) == b""
