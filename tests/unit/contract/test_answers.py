"""What the daemon tells of its image, read by a command that may be older or newer."""

import msgspec
import pytest

from deferfs.contract.answers import ImageIdentity, Outcome, decode_identity, decode_outcome
from deferfs.errors import ControlError

IDENTITY = {"device": "8:1", "inode": 12, "names": 1, "pid": 99}
OUTCOME = {**IDENTITY, "clean": True, "errors": False, "problem": ""}


def test_both_are_read_whatever_is_added() -> None:
    assert decode_identity({**IDENTITY, "new": 1}, "/mnt") == ImageIdentity(device="8:1", inode=12, names=1, pid=99)
    found = decode_outcome({**OUTCOME, "new": 1}, "/mnt")
    assert found == Outcome(device="8:1", inode=12, names=1, pid=99, clean=True, errors=False, problem="")
    assert msgspec.to_builtins(found) == OUTCOME


@pytest.mark.parametrize("read", [decode_identity, decode_outcome])
@pytest.mark.parametrize("answer", [None, [], {}, {**OUTCOME, "inode": "12"}])
def test_anything_else_is_an_error(read: object, answer: object) -> None:
    assert callable(read)
    with pytest.raises(ControlError, match="cannot be read"):
        read(answer, "/mnt")
