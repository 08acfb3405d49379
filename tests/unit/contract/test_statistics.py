"""The statistics as JSON, and the promise of a schema: every reader understands what any daemon of it has said."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from deferfs.contract.fields import Unit, fields_of
from deferfs.contract.inode_report import InodeReport, decode_inode
from deferfs.contract.statistics import SCHEMA, Statistics, Timing, Totals, decode, encode
from deferfs.errors import ControlError
from tests.documents import struct_in
from tests.statistics_sample import answer, read, sample, structs, zero

RELEASED = Path(__file__).parent / f"statistics-{SCHEMA}.json"
"""What a daemon said when the schema was made. Keys that come later are not in it, and none of it may go."""

SUFFIXES = {
    "_bytes": Unit.BYTES,
    "_blocks": Unit.BLOCKS,
    "_seconds": Unit.SECONDS,
    "_us": Unit.MICROSECONDS,
}
"""Names that end so have that unit."""


WITHOUT_UNIT = {"log2_ns", "reasons"}
"""A histogram, and sentences."""


ALL = [*structs(), *structs(InodeReport), Totals, Timing]


def test_statistics_of_the_first_daemon_of_this_schema_are_read_as_meant() -> None:
    said = json.loads(RELEASED.read_text())
    found = read(said)
    assert (found.schema, found.gc.queued, found.gc.queues[1].depth) == (SCHEMA, 12, 7)
    assert found.requests["create"].log2_ns == {1024: 3, 1048576: 1}
    assert found.waits_by_request["unlink"]["log"].total_ns == 700
    again = encode(found)
    assert keep(again, said) == said, "a key has gone or changed its type: that is a new schema"


def keep(found: Any, pattern: Any) -> Any:
    """`found` without the keys that `pattern` has not."""
    if isinstance(pattern, dict):
        return {key: keep(found[key], inner) for key, inner in pattern.items() if key in found}
    if isinstance(pattern, list):
        return [keep(one, inner) for one, inner in zip(found, pattern, strict=True)]
    return found


def test_keys_added_since_have_a_default() -> None:
    said = json.loads(RELEASED.read_text())
    described: list[tuple[type[msgspec.Struct], Any]] = [(Statistics, said)]
    described += [(type(getattr(read(said), key)), said[key]) for key in SECTIONS]
    for struct, path in described:
        optional = {field.name for field in msgspec.structs.fields(struct) if not field.required}
        assert {field.name for field in fields_of(struct)} - optional <= set(path), struct


SECTIONS = [field.name for field in fields_of(Statistics) if struct_in(field) is not None]


def test_a_key_that_a_reader_does_not_know_is_passed_over() -> None:
    found = answer(gc={"queued": 3})
    found["new"] = 1
    found["gc"]["new"] = {"more": 1}
    assert read(found) == sample(gc={"queued": 3})


def test_encoded_statistics_are_json_and_decode_to_the_same() -> None:
    timing = {"count": 1, "total_ns": 5, "max_ns": 5, "log2_ns": {"8": 1}}
    told = sample(image="/\udcff.img", requests={"read": timing}, inodes={"anomalies": {"stale_inode": 2}})
    assert told.requests["read"].log2_ns == {8: 1}
    assert read(json.loads(json.dumps(encode(told)))) == told


@pytest.mark.parametrize("reader", [decode, decode_inode])
@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            {**answer(), "schema": SCHEMA + 1, "version": "9.9"},
            f"deferfs 9.9, whose statistics have version {SCHEMA + 1}",
        ),
        ({"version": "0.1.0", "gc": {}}, "deferfs 0.1.0, whose statistics have no version"),
        ([], "another version of deferfs, whose statistics have no version"),
    ],
)
def test_another_schema_is_told_in_a_line(reader: Any, said: object, words: str) -> None:
    with pytest.raises(ControlError) as raised:
        reader(said, "/mnt")
    assert str(raised.value).startswith("/mnt: its daemon is ")
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("reader", [decode, decode_inode])
def test_a_broken_answer_is_an_error_and_no_traceback(reader: Any) -> None:
    with pytest.raises(ControlError, match=r"^/mnt: .* cannot be read: "):
        reader({"schema": SCHEMA, "pid": "me", "inode": "me"}, "/mnt")


@pytest.mark.parametrize("struct", ALL, ids=lambda struct: struct.__name__)
def test_every_field_says_what_it_means_and_in_which_unit(struct: type[msgspec.Struct]) -> None:
    assert struct.__doc__
    for field in fields_of(struct):
        if struct_in(field) is not None:
            continue  # its own fields say it
        assert field.meaning, field.name
        assert field.unit is not None or field.leaf in (Totals, Timing) or field.name in WITHOUT_UNIT, field.name


@pytest.mark.parametrize("struct", ALL, ids=lambda struct: struct.__name__)
def test_names_and_units_agree(struct: type[msgspec.Struct]) -> None:
    for field in fields_of(struct):
        for suffix, unit in SUFFIXES.items():
            if field.name.endswith(suffix):
                assert field.unit is unit, field.name
        if field.name.endswith("_total"):
            assert field.unit in (Unit.TOTAL, Unit.NANOSECONDS_TOTAL), field.name
        if field.name.endswith("_ns"):
            assert field.unit in (Unit.NANOSECONDS, Unit.NANOSECONDS_TOTAL) or field.name == "log2_ns", field.name


def test_no_metric_is_made_twice_but_by_fields_with_different_labels() -> None:
    seen = set()
    for struct in structs():
        for field in fields_of(struct):
            if field.metric is not None and struct_in(field) is None:
                key = (field.metric.name, field.metric.label)
                assert key not in seen
                seen.add(key)


def test_the_mean_of_nothing_is_nothing() -> None:
    assert Totals(count=0, total_ns=0, max_ns=0).mean_ns == 0
    assert Totals(count=4, total_ns=10, max_ns=9).mean_ns == 2.5


def test_the_sample_is_a_whole_answer() -> None:
    assert read({**zero(Statistics), "schema": SCHEMA}).memory.budget_bytes == 0
    with pytest.raises(KeyError):
        answer(gc={"queud": 1})
