"""The daemon's answers about its image. `deferfs umount` of any version must understand them: fields are only added,
with a default.
"""

from __future__ import annotations

import msgspec

from deferfs.errors import ControlError


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
    try:
        return msgspec.convert(answer, ImageIdentity)
    except msgspec.ValidationError as error:
        raise ControlError(f"{mountpoint}: the daemon's answer cannot be read: {error}") from None


def decode_outcome(answer: object, mountpoint: str) -> Outcome:
    """Decode the answer of the daemon behind `mountpoint`. ControlError when it is invalid."""
    try:
        return msgspec.convert(answer, Outcome)
    except msgspec.ValidationError as error:
        raise ControlError(f"{mountpoint}: the daemon's answer cannot be read: {error}") from None
