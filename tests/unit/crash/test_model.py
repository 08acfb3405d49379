"""The model where it is easily wrong: errors that depend on the order of checks."""

from __future__ import annotations

import errno
import stat

import pytest

from deferfs.crash.model import EXCHANGE, ROOT, Model, ModelError, Node

DIRECTORY = Node(stat.S_IFDIR | 0o755)


def fails_with(number: int, call: object, *arguments: object) -> None:
    assert callable(call)
    with pytest.raises(ModelError) as caught:
        call(*arguments)
    assert caught.value.errno == number


def test_nothing_moves_into_a_deleted_directory() -> None:
    """ENOENT comes before EINVAL, even where the deleted directory lay in the one that moves."""
    model = Model()
    model.create(ROOT, b"a", DIRECTORY, 8)
    model.create(8, b"b", DIRECTORY, 9)
    fails_with(errno.EINVAL, model.rename, ROOT, b"a", 9, b"c")
    model.rmdir(8, b"b")
    fails_with(errno.ENOENT, model.rename, ROOT, b"a", 9, b"c")
    fails_with(errno.ENOENT, model.create, 9, b"c", DIRECTORY, 10)


def test_directories_do_not_move_into_themselves() -> None:
    model = Model()
    model.create(ROOT, b"a", DIRECTORY, 8)
    model.create(8, b"b", DIRECTORY, 9)
    fails_with(errno.EINVAL, model.rename, ROOT, b"a", 8, b"c")
    fails_with(errno.EINVAL, model.rename, 8, b"b", ROOT, b"a", EXCHANGE)
    before = model.nodes
    fails_with(errno.ENOTEMPTY, model.rmdir, ROOT, b"a")
    assert model.nodes == before, "what is refused changes nothing"
