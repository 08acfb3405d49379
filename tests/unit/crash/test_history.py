"""What a file may show after a crash."""

from __future__ import annotations

import stat

from deferfs.crash.content import EMPTY
from deferfs.crash.history import History, Piece
from deferfs.crash.model import Node, Nodes


def holding(data: bytes) -> Nodes:
    """A state in which inode 8 is a file with this content."""
    return {8: Node(stat.S_IFREG | 0o600, size=len(data), content=EMPTY.write(0, data))}


def test_later_writes_may_be_there() -> None:
    history = History(holding(b"old"))
    history.attempt(1, 8, 0, b"new")
    history.applied(2, holding(b"new"))
    assert history.pieces(8, 0, 0, 0) == [Piece(0, b"old")]
    assert history.pieces(8, 0, 0, 1) == [Piece(0, b"old"), Piece(0, b"new")]
    assert history.pieces(8, 0, 1, 2) == [Piece(0, b"new")]


def test_another_file_of_the_same_number_is_another_file() -> None:
    """The inode is freed, its number used again: what is written then must not show in the file that was."""
    history = History(holding(b"first"))
    history.applied(3, {})
    history.applied(3, holding(b""))
    history.attempt(3, 8, 0, b"second")
    history.applied(4, holding(b"second"))
    assert history.pieces(8, 0, 0, 9) == [Piece(0, b"first")]
    assert history.pieces(8, 0, 2, 9) == [Piece(0, b""), Piece(0, b"second"), Piece(0, b"second")]
