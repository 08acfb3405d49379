import gc
from itertools import islice

from deferfs.mount.session import collect_seldom, random_numbers


def test_random_numbers_have_32_bits_and_do_not_repeat() -> None:
    draw = random_numbers()
    drawn = list(islice(iter(draw, None), 2000))
    assert all(0 <= number < 1 << 32 for number in drawn)
    assert max(drawn) >= 1 << 31
    assert len(set(drawn)) > 1990


def test_two_mounts_draw_different_numbers() -> None:
    first, second = random_numbers(), random_numbers()
    assert [first() for _ in range(8)] != [second() for _ in range(8)]


def test_circular_garbage_is_looked_for_less_often_but_still_is() -> None:
    before = gc.get_threshold()
    try:
        collect_seldom()
        assert gc.isenabled()
        assert all(now > then for now, then in zip(gc.get_threshold(), before, strict=True))
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
