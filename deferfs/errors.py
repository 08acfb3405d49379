"""Exceptions: what went wrong, for whom, and the exit code or errno it ends in.

Three audiences, three families:

- `DeferfsError` is for the person at the command line. Its text is one line that says what is
  wrong, with which path, and what to do; the command prints it without a traceback and exits with
  `exit_code`.
- `FsError` is for the caller of a filesystem operation. It carries an errno and is cheap to raise,
  because most of them (a lookup that finds nothing) are ordinary answers.
- `DeviceError` is raised by reads and writes of a device. It is an `OSError`.
"""

import errno as errno_codes
import os
from typing import TypeVar

E = TypeVar("E", bound=BaseException)

EUCLEAN = errno_codes.EUCLEAN
"""The errno of damaged metadata ("Structure needs cleaning"), as ext4 and XFS answer it."""


class DeferfsError(Exception):
    """A problem to show to the user: one line of text, no traceback.

    `exit_code` is what a command ends with unless its own conventions (fsck) say otherwise.
    """

    exit_code: int = 1


class UsageError(DeferfsError):
    """The command line asks for something that does not exist or does not fit together."""

    exit_code = 2


class ImageError(DeferfsError):
    """The image cannot be used: not a deferfs image, truncated, a bad checksum, an unknown feature."""


class ImageInUseError(DeferfsError):
    """Another process holds the image: mounted, or being checked or made."""


class ControlError(DeferfsError):
    """A mounted filesystem could not be asked, or refused what it was asked."""


class EnvironmentProblem(DeferfsError):
    """The machine lacks what the command needs: no /dev/fuse, not root, no usable cgroup."""

    exit_code = 2


class MountFailedError(DeferfsError):
    """The mount could not be made. 32 is the exit code that mount(8) documents for it."""

    exit_code = 32


class FsError(Exception):
    """A filesystem operation ends in an errno.

    `errno` is what the caller gets; `detail`, if any, is for the log.
    """

    __slots__ = ("detail", "errno")

    def __init__(self, errno: int, detail: str = "") -> None:
        self.errno = errno
        self.detail = detail

    def __str__(self) -> str:
        text = f"{errno_codes.errorcode.get(self.errno, self.errno)}: {os.strerror(self.errno)}"
        return f"{text} ({self.detail})" if self.detail else text


class CorruptionError(FsError):
    """Metadata is not what it must be: a bad checksum, a broken invariant. `detail` says which."""

    __slots__ = ()

    def __init__(self, detail: str) -> None:
        super().__init__(EUCLEAN, detail)


class DeviceError(OSError):
    """A request to a device has failed. `errno`, `strerror` and `filename` as in `OSError`."""

    def __init__(self, errno: int, message: str, device: str) -> None:
        super().__init__(errno, message, device)


def without_traceback(error: E) -> E:
    """The same exception, fit to be kept in a variable. Its traceback refers to the frame that caught it; kept in that
    frame, the two would be a cycle, which holds all local variables on the way until Python's collector comes by."""
    error.__traceback__ = None
    error.__context__ = None
    return error
