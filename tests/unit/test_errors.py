import errno

import pytest

from deferfs import errors


@pytest.mark.parametrize(
    ("kind", "exit_code"),
    [
        (errors.DeferfsError, 1),
        (errors.UsageError, 2),
        (errors.ImageError, 1),
        (errors.ImageInUseError, 1),
        (errors.ControlError, 1),
        (errors.EnvironmentProblem, 2),
        (errors.MountFailedError, 32),
    ],
)
def test_exit_codes(kind: type[errors.DeferfsError], exit_code: int) -> None:
    assert kind("one line").exit_code == exit_code
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
