"""B+trees of extents and directories."""

from __future__ import annotations

from array import array
from collections.abc import Callable

from deferfs.ondisk.node import EXTENT, DirectoryNode, ExtentNode
from tests.unit.check.damage import case
from tests.unit.check.image import Image, edit
from tests.unit.check.sample import BIG, FILES, SMALL, TREE


def _root(image: Image) -> int:
    return image.inode(TREE).root


def _leaves(image: Image) -> list[int]:
    return list(image.block(_root(image), ExtentNode).children)


def _change_leaf(image: Image, index: int, change: Callable[[ExtentNode], object]) -> None:
    image.change_block(_leaves(image)[index], ExtentNode, change)


@case("node-damaged", "block-leaked")
def spoiled_leaf(image: Image) -> None:
    image.spoil(_leaves(image)[0])


@case("node-damaged", "block-leaked")
def spoiled_root(image: Image) -> None:
    image.spoil(_root(image))


@case("node-damaged", "block-leaked")
def root_of_another_kind(image: Image) -> None:
    root = _root(image)
    image.put_raw(root, DirectoryNode(TREE).encode(image.fmt, root))


@case("node-damaged", "block-leaked")
def more_entries_than_fit(image: Image) -> None:
    image.patch(_leaves(image)[1], 24, b"\xff\xff\xff\xff")


@case("node-owner", "block-leaked")
def node_of_another_inode(image: Image) -> None:
    _change_leaf(image, 1, lambda node: edit(node, owner=SMALL))


@case("node-level", "block-leaked")
def leaf_on_the_wrong_level(image: Image) -> None:
    image.change_block(_root(image), ExtentNode, lambda node: edit(node, level=2))


@case("node-level", "block-leaked")
def root_high_up(image: Image) -> None:
    image.change_block(_root(image), ExtentNode, lambda node: edit(node, level=0xFFFF))


@case("node-keys", "block-leaked")
def keys_that_do_not_ascend(image: Image) -> None:
    _change_leaf(image, 0, lambda node: node.keys.__setitem__(3, node.keys[2]))


@case("node-keys", "block-leaked")
def keys_below_their_parent(image: Image) -> None:
    _change_leaf(image, 1, lambda node: node.keys.__setitem__(0, 0))


@case("node-keys", "block-leaked")
def keys_above_their_parent(image: Image) -> None:
    _change_leaf(image, 0, lambda node: node.keys.__setitem__(19, 40))


@case("node-keys", "block-leaked")
def inner_keys_that_do_not_ascend(image: Image) -> None:
    image.change_block(_root(image), ExtentNode, lambda node: node.keys.__setitem__(0, 1 << 40))


@case("node-empty", "inode-blocks", "block-leaked")
def empty_leaf_below_the_root(image: Image) -> None:
    _change_leaf(image, 1, lambda node: node.truncate(0))


@case("node-empty", "inode-blocks", "block-leaked")
def empty_inner_node(image: Image) -> None:
    image.change_block(_root(image), ExtentNode, lambda node: node.truncate(0))


@case("node-address", "block-leaked")
def child_beyond_the_end(image: Image) -> None:
    image.change_block(_root(image), ExtentNode, lambda node: node.children.__setitem__(1, 1 << 63))


@case("node-address", "block-leaked")
def root_at_block_zero(image: Image) -> None:
    image.change_inode(TREE, root=0)


@case("block-shared", "block-leaked")
def child_that_is_the_root(image: Image) -> None:
    root = _root(image)
    image.change_block(root, ExtentNode, lambda node: node.children.__setitem__(0, root))


@case("block-shared", "node-owner", "block-leaked")
def tree_of_another_inode(image: Image) -> None:
    other = image.inode(TREE)
    image.change_inode(SMALL, form=other.form, root=other.root, inline=b"", blocks=1, size=1 << 20)


@case("extent-order")
def extents_that_overlap_in_a_leaf(image: Image) -> None:
    def shift(node: ExtentNode) -> None:
        node.keys[18] += 1
        physical, _, _ = EXTENT.unpack(node.values[18])
        node.values[18] = EXTENT.pack(physical, 2, 0)
        image.mark(physical + 1, 1, 1)

    _change_leaf(image, 0, shift)
    image.change_inode(TREE, blocks=image.inode(TREE).blocks + 1)


@case("node-damaged", "inode-unreachable")
def spoiled_directory_leaf(image: Image) -> None:
    image.spoil(image.block(image.inode(BIG).root, DirectoryNode).children[1])


@case("node-damaged", "inode-unreachable", "link-count")
def spoiled_directory_of_one_node(image: Image) -> None:
    # EXTENTS keeps one of its two names
    image.spoil(image.inode(FILES).root)


@case("node-damaged", "block-leaked", "inode-unreachable")
def spoiled_directory_root(image: Image) -> None:
    image.spoil(image.inode(BIG).root)


@case("node-keys", "inode-unreachable")
def directory_keys_out_of_range(image: Image) -> None:
    root = image.inode(BIG).root
    image.change_block(root, DirectoryNode, lambda node: edit(node, keys=array("Q", [0, 1 << 62, 1 << 63])))
