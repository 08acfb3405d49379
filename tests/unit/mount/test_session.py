from itertools import islice

from deferfs.mount.session import random_numbers


def test_random_numbers_have_32_bits_and_do_not_repeat() -> None:
    draw = random_numbers()
    drawn = list(islice(iter(draw, None), 2000))
    assert all(0 <= number < 1 << 32 for number in drawn)
    assert max(drawn) >= 1 << 31
    assert len(set(drawn)) > 1990


def test_two_mounts_draw_different_numbers() -> None:
    first, second = random_numbers(), random_numbers()
    assert [first() for _ in range(8)] != [second() for _ in range(8)]
