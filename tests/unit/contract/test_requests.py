"""Requests of the control socket as JSON, and the promise of a schema: every daemon understands what any client of it
sends."""

import json
from typing import Any, get_args

import msgspec
import pytest

from deferfs import __version__
from deferfs.contract.answers import ImageIdentity, Outcome
from deferfs.contract.fields import fields_of
from deferfs.contract.inode_report import InodeReport
from deferfs.contract.requests import (
    REQUESTS,
    GetIdentity,
    GetInode,
    GetOutcome,
    GetState,
    GetStatistics,
    Query,
    Request,
    Set,
    Sync,
    decode_request,
    encode_request,
)
from deferfs.contract.statistics import SCHEMA
from deferfs.errors import ControlError
from tests.statistics_sample import answer, sample
from tests.unit.contract.exchanges import EXCHANGES

IDENTITY = {"device": "8:1", "inode": 12, "names": 1, "pid": 99}
OUTCOME = {**IDENTITY, "clean": True, "errors": False, "problem": ""}
REPORT: dict[str, Any] = {"schema": SCHEMA, "inode": 14, "record": None, "memory": None, "reasons": []}


@pytest.mark.parametrize("request_", [one["request"] for one in EXCHANGES], ids=lambda one: str(one["command"]))
def test_requests_of_the_released_schema_are_read_and_sent_as_they_were(request_: dict[str, str]) -> None:
    found = decode_request(json.dumps(request_).encode())
    assert type(found) is REQUESTS[request_["command"]]
    assert json.loads(encode_request(found)) == request_


def test_requests_of_the_released_schema_are_all_there() -> None:
    assert {one["request"]["command"] for one in EXCHANGES} <= set(REQUESTS)
    assert len(REQUESTS) == len(get_args(Request))


def test_a_field_added_to_a_request_since_has_a_default() -> None:
    for one in EXCHANGES:
        kind = REQUESTS[one["request"]["command"]]
        required = {field.name for field in msgspec.structs.fields(kind) if field.required}
        assert required <= set(one["request"]), kind


@pytest.mark.parametrize(
    ("request_", "result", "expected"),
    [
        (GetState(), "serving", "serving"),
        (GetIdentity(), IDENTITY, ImageIdentity(device="8:1", inode=12, names=1, pid=99)),
        (
            GetOutcome(),
            OUTCOME,
            Outcome(device="8:1", inode=12, names=1, pid=99, clean=True, errors=False, problem=""),
        ),
        (GetStatistics(), answer(evict="inline"), sample(evict="inline")),
        (GetInode(number="14"), REPORT, InodeReport(schema=SCHEMA, inode=14, record=None, memory=None, reasons=[])),
        (Sync(), None, None),
        (Set(key="evict", value="inline"), "evict=inline", "evict=inline"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_request_reads_its_answer(request_: Query[Any], result: object, expected: object) -> None:
    assert request_.read(result, "/mnt") == expected


@pytest.mark.parametrize(
    "request_", [GetState(), GetIdentity(), GetOutcome(), GetStatistics(), GetInode(number="14"), Set(key="", value="")]
)
def test_an_answer_of_another_type_is_told_in_a_line(request_: Query[Any]) -> None:
    with pytest.raises(ControlError, match=r"^/mnt: ") as raised:
        request_.read(7, "/mnt")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"command": "dance"}', "does not know the request 'dance'; it knows state, "),
        (b'{"command": "stat", "deep": true}', "cannot read the request 'stat': Object contains unknown field `deep`"),
        (b'{"command": "inode"}', "cannot read the request 'inode': Object missing required field `number`"),
        (b'{"command": "inode", "number": "1\\n2"}', "cannot read the request 'inode': "),
    ],
)
def test_a_request_that_the_daemon_does_not_know_is_refused_with_its_version(line: bytes, words: str) -> None:
    with pytest.raises(ControlError) as raised:
        decode_request(line)
    assert str(raised.value).startswith(f"the daemon (deferfs {__version__}, schema {SCHEMA}) {words}")
    assert "\n" not in str(raised.value)


def test_a_value_that_is_not_utf8_arrives_as_it_was() -> None:
    request_ = Set(key="trace", value="/\udcff.json")
    assert decode_request(encode_request(request_)) == request_


@pytest.mark.parametrize("kind", get_args(Request), ids=lambda kind: kind.__name__)
def test_a_request_says_what_it_and_its_fields_mean(kind: type[Query[Any]]) -> None:
    assert kind.__doc__
    for field in fields_of(kind):
        assert field.meaning, field.name
        assert field.unit is not None, field.name
