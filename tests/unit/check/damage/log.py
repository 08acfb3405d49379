"""The log."""

from __future__ import annotations

from deferfs.ondisk.inode import INODE_FILE_INO
from deferfs.ondisk.superblock import STATE_CLEAN
from tests.unit.check.builder import JOURNAL_BLOCKS
from tests.unit.check.damage import case
from tests.unit.check.image import Image
from tests.unit.check.sample import SMALL

_UNCLEAN = ~STATE_CLEAN


def _logged_and_spoiled(image: Image) -> dict[int, bytes]:
    """Images of two blocks that are then damaged at home: only the log can mend them."""
    addresses = (image.locate(SMALL)[0], image.mapped(INODE_FILE_INO, 0))
    logged = {address: image.raw(address) for address in addresses}
    for address in addresses:
        image.spoil(address)
    return logged


def _unclean(image: Image, tail: int = 0, tid: int = 5) -> None:
    image.change_superblock(state=0, journal_tail=tail, tail_tid=tid)


@case()
def blocks_that_the_log_mends(image: Image) -> None:
    _unclean(image)
    image.log(0, 5, _logged_and_spoiled(image))


@case()
def log_around_the_end(image: Image) -> None:
    _unclean(image, tail=JOURNAL_BLOCKS - 2, tid=9)
    image.log(JOURNAL_BLOCKS - 2, 9, _logged_and_spoiled(image))


@case()
def newest_image_counts(image: Image) -> None:
    _unclean(image)
    address = image.locate(SMALL)[0]
    good = image.raw(address)
    image.spoil(address)
    after = image.log(0, 5, {address: bytes(len(good))})
    image.log(after, 6, {address: good})


@case()
def revoked_images_are_not_replayed(image: Image) -> None:
    _unclean(image)
    address = image.locate(SMALL)[0]
    after = image.log(0, 5, {address: bytes(image.fmt.block_size)})
    image.log(after, 6, {}, (address,))


@case()
def revoked_in_its_own_transaction(image: Image) -> None:
    _unclean(image)
    address = image.locate(SMALL)[0]
    image.log(0, 5, {address: bytes(image.fmt.block_size)}, (address,))


@case()
def logged_again_after_a_revoke(image: Image) -> None:
    _unclean(image)
    logged = _logged_and_spoiled(image)
    after = image.log(0, 5, {}, tuple(logged))
    image.log(after, 6, logged)


@case()
def interrupted_commit(image: Image) -> None:
    _unclean(image)
    after = image.log(0, 5, _logged_and_spoiled(image))
    end = image.log(after, 6, {image.locate(SMALL)[0]: bytes(image.fmt.block_size)})
    image.put_raw(image.superblock.journal_start + end - 1, bytes(image.fmt.block_size))


@case()
def torn_image_in_the_last_commit(image: Image) -> None:
    _unclean(image)
    image.log(0, 5, {image.locate(SMALL)[0]: bytes(image.fmt.block_size)})
    image.spoil(image.superblock.journal_start + 1)


@case()
def torn_descriptor_in_the_last_commit(image: Image) -> None:
    _unclean(image)
    image.log(0, 5, {image.locate(SMALL)[0]: bytes(image.fmt.block_size)})
    image.spoil(image.superblock.journal_start)


@case()
def remains_of_an_earlier_lap(image: Image) -> None:
    _unclean(image, tid=8)
    image.log(0, 5, {image.locate(SMALL)[0]: bytes(image.fmt.block_size)})
    image.log(10, 7, {image.locate(SMALL)[0]: bytes(image.fmt.block_size)})


@case("log-gap")
def damaged_transaction_in_the_middle(image: Image) -> None:
    _unclean(image)
    address = image.locate(SMALL)[0]
    same = {address: image.raw(address)}
    after = image.log(0, 5, same)
    image.log(after, 6, same)
    image.log(2 * after, 7, same)
    image.spoil(image.superblock.journal_start + after + 1)


@case("log-gap")
def damaged_first_transaction(image: Image) -> None:
    _unclean(image)
    address = image.locate(SMALL)[0]
    after = image.log(0, 5, {address: image.raw(address)})
    image.log(after, 6, {address: image.raw(address)})
    image.spoil(image.superblock.journal_start)


@case("log-home")
def image_for_the_superblock(image: Image) -> None:
    _unclean(image)
    image.log(0, 5, {0: bytes(image.fmt.block_size)})


@case("log-home")
def image_for_the_log_itself(image: Image) -> None:
    _unclean(image)
    home = image.superblock.journal_start + 30
    image.log(0, 5, {home: bytes(image.fmt.block_size)})


@case("log-home")
def image_beyond_the_end(image: Image) -> None:
    _unclean(image)
    image.log(0, 5, {1 << 60: bytes(image.fmt.block_size)})


@case("log-home")
def revoke_beyond_the_end(image: Image) -> None:
    _unclean(image)
    image.log(0, 5, {}, (image.superblock.blocks,))


@case("log-not-empty")
def clean_with_a_log(image: Image) -> None:
    address = image.locate(SMALL)[0]
    image.log(0, 1, {address: image.raw(address)})
