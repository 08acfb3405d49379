"""Expecting an errno."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def fails_with(*numbers: int) -> Iterator[None]:
    """The block must end in an OSError with one of these errnos."""
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is what is checked
        yield
    assert caught.value.errno in numbers, f"{errno.errorcode[caught.value.errno or 0]}: {caught.value}"
