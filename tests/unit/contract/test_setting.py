"""One setting: its value as a mount option and as a change, and what is said of a wrong one."""

import pytest

from deferfs.contract.settings import DISCARD, GC, GC_RATE, MEMORY, POLL, THROTTLE_EXTENTS, WRITEBACK_CACHE
from deferfs.errors import UsageError


def test_the_same_value_as_an_option_and_as_a_change() -> None:
    assert MEMORY.option("64M") == MEMORY.change("64M") == 64 << 20
    assert WRITEBACK_CACHE.option("off") is False
    assert DISCARD.option(None) is True
    assert GC.change("flush:14") == ("flush", "14")


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: POLL.option("2000"), "mount option poll=2000: must be a whole number from 0 to 1000"),
        (lambda: POLL.change("2000"), "poll must be a whole number from 0 to 1000, not '2000'"),
        (lambda: POLL.option(None), "mount option poll needs a value (poll=...)"),
        (lambda: POLL.option(""), "mount option poll needs a value (poll=...)"),
        (lambda: DISCARD.option("1"), "mount option discard takes no value (got '1')"),
        (lambda: DISCARD.option(""), "mount option discard takes no value (got '')"),
        (lambda: MEMORY.option("1M"), "mount option memory=1M: must be at least 2M"),
        (lambda: MEMORY.change("1M"), "memory must be at least 2M, not '1M'"),
        (
            lambda: MEMORY.change("lots"),
            "memory: 'lots' is not a size; write a number with an optional K, M, G, T or P",
        ),
        (lambda: GC_RATE.change("0.01"), "gc_rate must be 0 (no limit) or a number from 0.1 to 1e+09, not '0.01'"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named_with_its_rule(call: object, text: str) -> None:
    assert callable(call)
    with pytest.raises(UsageError) as raised:
        call()
    assert str(raised.value) == text


def test_help_texts_have_the_form_and_the_default() -> None:
    assert (POLL.form, POLL.default_text) == ("poll=MICROSECONDS", "50")
    assert (DISCARD.form, DISCARD.default_text) == ("discard", "off")
    assert THROTTLE_EXTENTS.default_text == "1048576"
    assert MEMORY.default_text.startswith("256M")
