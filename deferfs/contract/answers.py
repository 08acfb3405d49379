"""The daemon's answers about its image. `deferfs umount` of any version must understand them: fields are only added,
with a default.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from deferfs.errors import ControlError

T = TypeVar("T")


class ImageIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """The open image. `device` is "major:minor", `names` the file's number of hard links, `pid` the daemon."""

    device: str
    inode: int
    names: int
    pid: int


class Outcome(ImageIdentity, frozen=True, kw_only=True):
    """The state of the image after the daemon has closed it.

    `clean`: nothing has to be replayed. `errors`: damaged metadata was found. `problem`: why the journal was aborted;
    empty when it was not.
    """

    clean: bool
    errors: bool
    problem: str


def decode_identity(answer: object, mountpoint: str) -> ImageIdentity:
    """Decode the answer of the daemon behind `mountpoint`. ControlError when it is invalid."""
    return read_as(ImageIdentity, answer, mountpoint)


def decode_outcome(answer: object, mountpoint: str) -> Outcome:
    """Decode the answer of the daemon behind `mountpoint`. ControlError when it is invalid."""
    return read_as(Outcome, answer, mountpoint)


def read_as(kind: type[T], answer: object, mountpoint: str) -> T:
    """`answer` of the daemon behind `mountpoint`, as a `kind`. ControlError, in one line, when it is none."""
    try:
        return msgspec.convert(answer, kind)
    except msgspec.ValidationError as error:
        raise ControlError(f"{mountpoint}: the daemon's answer cannot be read: {error}") from None
