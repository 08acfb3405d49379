from deferfs.measure.scenario import Measure, Pass, Role, Series, Side
from deferfs.measure.stats.comparing import held_against, value_of
from deferfs.measure.stats.histogram import fold


def names(*sides: tuple[str, Role]) -> list[tuple[str, str]]:
    made = [Side(name, name, role) for name, role in sides]
    return [(above.name, below.name) for above, below in held_against(made)]


def test_inline_first_then_others_then_the_floor() -> None:
    found = names(("ext4", "kernel"), ("none", "floor"), ("inline", "inline"), ("deferred", "deferred"))
    assert found == [("inline", "deferred"), ("ext4", "deferred"), ("none", "deferred"), ("none", "inline")]


def test_roles_that_come_up_twice_belong_together_in_their_order() -> None:
    sides: list[tuple[str, Role]] = [("i1", "inline"), ("i2", "inline"), ("d1", "deferred"), ("d2", "deferred")]
    assert names(*sides) == [("i1", "d1"), ("i2", "d2")]
    assert names(*sides, ("f1", "floor"), ("f2", "floor"))[2:] == [
        ("f1", "d1"),
        ("f2", "d2"),
        ("f1", "i1"),
        ("f2", "i2"),
    ]


def test_without_deferfs_the_others_are_held_against_the_floor() -> None:
    assert names(("as-mounted", "kernel"), ("kept", "floor")) == [("kept", "as-mounted")]


def test_the_value_of_a_pass() -> None:
    series = {"read": Series(fold(range(1, 21)), 20)}
    one = Pass("inline", "open", "finished", 2.5, series, {"written_bytes": 7.0})
    assert value_of(one, Measure("read", "max", "a read")) == 20
    assert value_of(one, Measure("read", "p50", "a read")) == 10
    assert value_of(one, Measure("read", "p99", "a read")) is None  # of 20 samples
    assert value_of(one, Measure("gone", "max", "a read")) is None
    assert value_of(one, Measure("seconds", "value", "all")) == 2.5
    assert value_of(one, Measure("written_bytes", "value", "written")) == 7
    assert value_of(one, Measure("gone_bytes", "value", "gone")) is None
