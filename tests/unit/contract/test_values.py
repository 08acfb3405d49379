"""Kinds of values: what each takes, refuses, and writes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deferfs.contract.values import (
    Choice,
    File,
    Present,
    Real,
    Size,
    Switch,
    Value,
    Whole,
    Word,
    Words,
    WrongValueError,
    either,
)
from deferfs.errors import UsageError

VERBS = Words((Word("push", "push it"), Word("flush", "all"), Word("flush", "one", "INODE")))


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Choice(("a", "b")), "b", "b"),
        (Switch(), "on", True),
        (Switch("1", "0"), "0", False),
        (Present(), "", True),
        (Real(0.5, 9), "0.5", 0.5),
        (Real(0.5, 9, zero="never"), "0", 0),
        (Whole(1, 9), "9", 9),
        (Size(4 << 20), "4M", 4 << 20),
        (File(), "a=b", "a=b"),
        (VERBS, "flush", ("flush", "")),
        (VERBS, "flush:x", ("flush", "x")),
    ],
)
def test_a_value_takes(kind: Value[Any], text: str, value: object) -> None:
    found = kind.parse(text)
    assert found == value
    if kind.form:
        assert kind.parse(kind.text(found)) == value


@pytest.mark.parametrize(
    ("kind", "text", "rule"),
    [
        (Choice(("a", "b", "c")), "d", "must be a, b or c"),
        (Choice(("a",)), "", "must be a"),
        (Switch(), "1", "must be on or off"),
        (Present(), "1", "takes no value"),
        (Real(0.5, 9), "0.4", "must be a number from 0.5 to 9"),
        (Real(0.5, 9), "nan", "must be a number from 0.5 to 9"),
        (Real(0.5, 9), "0", "must be a number from 0.5 to 9"),
        (Real(0.5, 9, zero="never"), "0.4", r"must be 0 \(never\) or a number from 0.5 to 9"),
        (Whole(1, 9), "10", "must be a whole number from 1 to 9"),
        (Whole(1, 9), "1.0", "must be a whole number from 1 to 9"),
        (Whole(0, 9), "\u0663", "must be a whole number from 0 to 9"),
        (Size(4 << 20), "3M", "must be at least 4M"),
        (VERBS, "pull", "must be push, flush or flush:INODE"),
        (VERBS, "flush:", "must be"),
        (VERBS, "push:1", "must be"),
    ],
)
def test_a_value_refuses(kind: Value[Any], text: str, rule: str) -> None:
    with pytest.raises(WrongValueError, match=f"^{rule}"):
        kind.parse(text)


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        (Choice(("a", "b")), "a|b"),
        (Switch(), "on|off"),
        (Real(0, 1), "SECONDS"),
        (File("off"), "FILE|off"),
        (VERBS, "push|flush|flush:INODE"),
    ],
)
def test_the_form_for_help_texts(kind: Value[Any], form: str) -> None:
    assert kind.form == form


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0"), (1000, "1000"), (1536, "1536"), (64 << 20, "64M"), (1 << 50, "1P")]
)
def test_sizes_are_written_with_the_largest_whole_unit(size: int, text: str) -> None:
    assert Size().text(size) == text
    assert Size().parse(text) == size


@given(st.text())
def test_any_text_is_a_value_or_a_usage_error(text: str) -> None:
    for kind in (Choice(("a",)), Switch(), Real(0, 9), Whole(0, 9), Size(), VERBS):
        try:
            kind.parse(text)
        except UsageError as error:
            assert str(error)  # noqa: PT017  (either outcome is fine)


def test_a_list_in_words() -> None:
    assert [either(words) for words in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a or b", "a, b or c"]
