"""Replies of the control socket as JSON."""

import json

import pytest

from deferfs.contract.replies import Done, Refused, decode_reply, encode_reply
from deferfs.errors import ControlError
from tests.unit.contract.exchanges import EXCHANGES


@pytest.mark.parametrize("said", [one["reply"] for one in EXCHANGES], ids=lambda one: str(one["ok"]))
def test_replies_of_the_released_schema_are_read_and_sent_as_they_were(said: dict[str, object]) -> None:
    found = decode_reply(json.dumps({**said, "new": 1}).encode(), "/mnt")
    assert isinstance(found, Done if said["ok"] else Refused)
    assert json.loads(encode_reply(found)) == said


def test_a_result_that_is_not_utf8_arrives_as_it_was() -> None:
    assert decode_reply(encode_reply(Done(result={"image": "/\udcff"})), "/mnt") == Done(result={"image": "/\udcff"})


@pytest.mark.parametrize(
    "line", [b"", b"7", b"{}", b'{"ok": true}', b'{"ok": false}', b'{"ok": 1, "result": 7}', b"\xff"]
)
def test_anything_else_is_an_error_in_one_line(line: bytes) -> None:
    with pytest.raises(ControlError, match=r"^/mnt: the daemon's answer cannot be read: ") as raised:
        decode_reply(line, "/mnt")
    assert "\n" not in str(raised.value)
