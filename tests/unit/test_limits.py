import pytest

from deferfs import limits
from deferfs.errors import UsageError
from deferfs.ondisk.format import SUPERBLOCK_OFFSETS, Format
from deferfs.ondisk.journal import transaction_blocks
from deferfs.ondisk.xattr import XattrBlock
from deferfs.store.mkfs import Geometry, plan_geometry
from tests.unit.volumes import HASH_KEY, UUID, formats, fresh_store


def test_block_sizes_are_powers_of_two_and_fit_below_the_second_superblock() -> None:
    for size in (limits.BLOCK_SIZE_BYTES_MIN, limits.BLOCK_SIZE_BYTES_DEFAULT, limits.BLOCK_SIZE_BYTES_MAX):
        assert size & (size - 1) == 0
        assert SUPERBLOCK_OFFSETS[1] % size == 0, "the second superblock begins a block"


@pytest.mark.parametrize("fmt", formats(), ids=lambda fmt: fmt.block_size)
def test_an_xattr_value_of_one_block_fits_into_the_smallest_log(fmt: Format) -> None:
    pieces = -(-fmt.block_size // XattrBlock.payload_max(fmt))
    assert transaction_blocks(fmt, pieces + 8, 0) < limits.JOURNAL_BLOCKS_MIN // limits.TRANSACTION_FRACTION


@pytest.mark.parametrize("fmt", formats(), ids=lambda fmt: fmt.block_size)
def test_two_transactions_fit_into_the_smallest_log_beside_a_third(fmt: Format) -> None:
    """One commits, one runs, and one has been committed; and a checkpoint begins before they need all of the log."""
    journal = fresh_store(block_size=fmt.block_size, journal_blocks=limits.JOURNAL_BLOCKS_MIN).journal
    assert 3 * journal.transaction_blocks_max <= journal.blocks
    assert journal.blocks // limits.CHECKPOINT_START_FRACTION < journal.transaction_blocks_max


def test_logical_blocks_stay_far_below_the_key_space() -> None:
    assert limits.FILE_BYTES_MAX // limits.BLOCK_SIZE_BYTES_MIN < 1 << 40


@pytest.mark.parametrize("block_size", [fmt.block_size for fmt in formats()])
def test_the_reserve_for_freeing_operations_is_a_part_of_the_free_blocks_of_the_smallest_image(block_size: int) -> None:
    with pytest.raises(UsageError, match="too small") as refused:
        smallest(block_size, block_size)
    size = int(str(refused.value).split()[-3])
    smallest(size, block_size)
    space = fresh_store(size, block_size=block_size, journal_blocks=limits.JOURNAL_BLOCKS_MIN).space
    assert 0 < space.reserve < space.free_blocks // 2


def smallest(size: int, block_size: int) -> Geometry:
    return plan_geometry(
        size, block_size=block_size, uuid=UUID, hash_key=HASH_KEY, now_ns=1,
        journal_bytes=limits.JOURNAL_BLOCKS_MIN * block_size,
    )  # fmt: skip
