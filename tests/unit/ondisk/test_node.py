import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deferfs.errors import CorruptionError
from deferfs.ondisk.format import HEADER_BYTES, Format
from deferfs.ondisk.node import EXTENT, DirectoryNode, ExtentNode, Node
from tests.unit.volumes import formats

FORMATS = formats()
FMT = FORMATS[0]
u64 = st.integers(0, 2**64 - 1)
extent_values = st.builds(EXTENT.pack, u64, st.integers(0, 2**32 - 1), st.integers(0, 1))
directory_values = st.binary(min_size=10, max_size=9 + 255)
KINDS: list[tuple[type[Node], st.SearchStrategy[bytes]]] = [
    (ExtentNode, extent_values),
    (DirectoryNode, directory_values),
]


@st.composite
def leaves(draw: st.DrawFn) -> Node:
    kind, values = draw(st.sampled_from(KINDS))
    node = kind(draw(u64))
    for index, key in enumerate(sorted(draw(st.sets(u64, max_size=3)))):
        node.insert_value(index, key, draw(values))
    return node


@st.composite
def inner_nodes(draw: st.DrawFn) -> Node:
    node = draw(st.sampled_from([ExtentNode, DirectoryNode]))(draw(u64), draw(st.integers(1, 12)))
    for index, key in enumerate(sorted(draw(st.sets(u64, max_size=20)))):
        node.insert_child(index, key, draw(u64))
    return node


def contents(node: Node) -> tuple[Any, ...]:
    return node.owner, node.level, list(node.keys), node.values, list(node.children), node.used


@given(fmt=st.sampled_from(FORMATS), node=leaves() | inner_nodes())
def test_round_trip(fmt: Format, node: Node) -> None:
    image = node.encode(fmt, 5)
    assert len(image) == fmt.block_size
    assert fmt.open_header(5, image, node.MAGIC) == (node.owner, len(node.keys), node.level)
    assert not any(image[node.used :])
    assert contents(type(node).decode(fmt, 5, image)) == contents(node)
    assert contents(node.copy()) == contents(node)


def test_a_directory_leaf_lies_as_the_docstring_says() -> None:
    leaf = DirectoryNode(9)
    leaf.insert_value(0, 0x100, b"A" * 10)
    leaf.insert_value(1, 0x200, b"B" * 11)
    image = leaf.encode(FMT, 5)
    assert image[HEADER_BYTES : leaf.used] == struct.pack("<QQHH", 0x100, 0x200, 10, 11) + b"A" * 10 + b"B" * 11


def test_an_extent_leaf_and_an_inner_node_lie_as_the_docstring_says() -> None:
    leaf = ExtentNode(9)
    leaf.insert_value(0, 4, EXTENT.pack(70, 8, 1))
    assert leaf.encode(FMT, 5)[HEADER_BYTES : leaf.used] == struct.pack("<QQII", 4, 70, 8, 1)
    inner = ExtentNode(9, 1)
    inner.insert_child(0, 0, 70)
    inner.insert_child(1, 4, 71)
    assert inner.encode(FMT, 5)[HEADER_BYTES : inner.used] == struct.pack("<QQQQ", 0, 4, 70, 71)


@given(node=leaves() | inner_nodes(), data=st.data())
def test_used_is_the_encoded_size_whatever_is_done(node: Node, data: st.DataObject) -> None:
    count = len(node.keys)
    if count:
        node.delete(data.draw(st.integers(0, count - 1)))
    other = type(node)(node.owner, node.level)
    cut = data.draw(st.integers(0, len(node.keys)))
    other.take_from(node, cut, len(node.keys))
    node.truncate(cut)
    for part in (node, other):
        assert part.used == HEADER_BYTES + sum(map(part.entry_bytes, range(len(part.keys))))
        part.encode(FORMATS[1], 5)


def test_a_copy_is_independent() -> None:
    leaf = ExtentNode(9)
    leaf.insert_value(0, 4, EXTENT.pack(70, 8, 1))
    leaf.copy().delete(0)
    assert list(leaf.keys) == [4]


def test_a_node_larger_than_its_block_is_not_written() -> None:
    leaf = DirectoryNode(9)
    for key in range(4):
        leaf.insert_value(key, key, b"x" * 264)
    with pytest.raises(AssertionError, match="outgrew"):
        leaf.encode(FMT, 5)


def forged(kind: type[Node], count: int, level: int, body: bytes) -> bytes:
    return FMT.seal(5, bytearray((FMT.header(kind.MAGIC, 5, 9, count, level) + body).ljust(1024, b"\0")))


@pytest.mark.parametrize(
    "image",
    [
        forged(ExtentNode, 125, 0, b""),
        forged(ExtentNode, 42, 0, b""),
        forged(ExtentNode, 63, 1, b""),
        forged(DirectoryNode, 100, 0, b""),
        forged(DirectoryNode, 1, 0, struct.pack("<QH", 1, 1024)),
        forged(DirectoryNode, 2**32 - 1, 0, b""),
    ],
)
def test_a_count_or_length_that_does_not_fit_is_refused(image: bytes) -> None:
    kind = ExtentNode if image[4:8] == b"DXTN" else DirectoryNode
    with pytest.raises(CorruptionError):
        kind.decode(FMT, 5, image)


def test_a_node_of_the_other_kind_is_refused() -> None:
    with pytest.raises(CorruptionError, match="magic"):
        DirectoryNode.decode(FMT, 5, ExtentNode(9).encode(FMT, 5))
