import errno
import re
from pathlib import Path

import pytest

from deferfs import errors


def kinds(kind: type[errors.DeferfsError] = errors.DeferfsError) -> list[type[errors.DeferfsError]]:
    """The errors of `errors`, derived ones behind those that they are derived from."""
    below = [found for derived in kind.__subclasses__() for found in kinds(derived)]
    return [found for found in (kind, *below) if found.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", kinds())
def test_the_exit_code_of_an_error_is_documented(kind: type[errors.DeferfsError]) -> None:
    document = Path(__file__).parents[2].joinpath("docs", "command-line.md").read_text()
    (table,) = re.findall(r"^\| Code \|.*\n\|---.*\n((?:\|.*\n)+)", document, re.MULTILINE)
    documented = {int(row.split("|")[1]) for row in table.splitlines()}
    assert kind("one line").exit_code in documented
    assert str(kind("one line")) == "one line"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (errors.FsError(errno.ENOENT), "ENOENT: No such file or directory"),
        (errors.FsError(errno.ENOSPC, "log"), "ENOSPC: No space left on device (log)"),
        (errors.CorruptionError("block 7"), "EUCLEAN: Structure needs cleaning (block 7)"),
        (errors.FsError(99999), "99999: Unknown error 99999"),
    ],
)
def test_the_text_of_an_operation_error(error: errors.FsError, text: str) -> None:
    assert str(error) == text


def test_corruption_is_an_operation_error_with_its_own_errno() -> None:
    error = errors.CorruptionError("block 7")
    assert isinstance(error, errors.FsError)
    assert error.errno == errors.EUCLEAN == errno.EUCLEAN
    assert error.detail == "block 7"


def test_a_device_error_is_an_os_error_of_the_device() -> None:
    error = errors.DeviceError(errno.EIO, "broken", "disk")
    assert isinstance(error, OSError)
    assert (error.errno, error.strerror, error.filename) == (errno.EIO, "broken", "disk")
