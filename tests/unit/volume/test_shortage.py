from deferfs.store.memory import Memory
from deferfs.volume.shortage import memory_is_short, reclaim_goal, space_is_short
from tests.unit.volumes import fresh_store


def memory_with(used: int) -> Memory:
    memory = Memory(1600)  # 100 of them the reserve
    memory.add_account("all", lambda: used)
    return memory


def test_memory_is_short_before_operations_have_to_reclaim_it() -> None:
    """They may use 1500."""
    assert not memory_is_short(memory_with(1350))
    assert memory_is_short(memory_with(1351))
    assert memory_with(1351).excess(reserve=False) == 0


def test_reclaim_goes_on_beyond_what_is_short() -> None:
    """So that it does not begin again at once."""
    goal = reclaim_goal(memory_with(0))
    assert goal == 1200
    assert not memory_is_short(memory_with(goal))


def test_space_is_short_when_a_twentieth_is_left() -> None:
    space = fresh_store().space
    assert not space_is_short(space)
    while space.free_blocks >= space.blocks // 20:
        assert not space_is_short(space)
        space.hold(0, 8, reserve=True)
    assert space_is_short(space)
