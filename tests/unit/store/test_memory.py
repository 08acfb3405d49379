import pytest

from deferfs.store.memory import Memory
from deferfs.store.needs import NeedMemory
from tests.unit.volumes import fresh_driver, fresh_store


def test_used_is_the_sum_of_the_accounts() -> None:
    memory = Memory(1600)
    used = {"a": 300, "b": 4}
    for name in used:
        memory.add_account(name, lambda name=name: used[name], lambda: 1 << 40)  # type: ignore[misc]
    assert memory.used == 304
    used["a"] = 1000
    statistics = memory.statistics()
    assert (statistics.budget_bytes, statistics.reserve_bytes, statistics.used_bytes) == (1600, 100, 1004)
    assert statistics.accounts == {"a": 1000, "b": 4}


@pytest.mark.parametrize(
    ("used", "ordinary", "reserve"), [(1500, 0, 0), (1501, 1, 0), (1600, 100, 0), (1700, 200, 100)]
)
def test_the_reserve_is_for_inactivation(used: int, ordinary: int, reserve: int) -> None:
    memory = Memory(1600)
    memory.add_account("all", lambda: used, lambda: 1 << 40)
    assert memory.excess(reserve=False) == ordinary
    assert memory.excess(reserve=True) == reserve


def test_a_new_limit_sets_the_reserve_anew() -> None:
    memory = Memory(1600)
    memory.set_limit(3200)
    assert (memory.limit_bytes, memory.reserve_bytes) == (3200, 200)


def test_a_plan_needs_memory_when_the_budget_is_exceeded() -> None:
    store = fresh_store()
    store.memory.set_limit(store.memory.used)
    with pytest.raises(NeedMemory) as caught:
        store.plan()
    assert caught.value.bytes_over == store.memory.reserve_bytes
    store.plan(reserve=True)


def test_the_budget_counts_inodes_and_blocks() -> None:
    driver = fresh_driver()
    before = driver.volume.store.memory.statistics().accounts
    driver.volume.inodes.lookup(8, 1)
    after = driver.volume.store.memory.statistics().accounts
    assert after["inodes"] > before["inodes"] == 0
    assert after["blocks"] == before["blocks"] == driver.volume.store.cache.bytes > 0
