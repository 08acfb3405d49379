import pytest

from deferfs import limits
from deferfs.ondisk.format import Format
from deferfs.ondisk.journal import transaction_blocks
from deferfs.ondisk.xattr import XattrBlock
from tests.unit.volumes import formats


def test_block_sizes_are_powers_of_two_and_fit_below_the_second_superblock() -> None:
    for size in (limits.BLOCK_SIZE_BYTES_MIN, limits.BLOCK_SIZE_BYTES_DEFAULT, limits.BLOCK_SIZE_BYTES_MAX):
        assert size & (size - 1) == 0
    assert limits.BLOCK_SIZE_BYTES_MIN <= limits.BLOCK_SIZE_BYTES_DEFAULT <= limits.BLOCK_SIZE_BYTES_MAX


@pytest.mark.parametrize("fmt", formats(), ids=lambda fmt: fmt.block_size)
def test_an_xattr_value_of_one_block_fits_into_the_smallest_log(fmt: Format) -> None:
    pieces = -(-fmt.block_size // XattrBlock.room(fmt))
    assert transaction_blocks(fmt, pieces + 8, 0) < limits.JOURNAL_BLOCKS_MIN // limits.TRANSACTION_FRACTION


def test_two_transactions_fit_into_the_log_beside_a_third() -> None:
    assert limits.TRANSACTION_FRACTION >= 3
    assert limits.CHECKPOINT_START_FRACTION > limits.TRANSACTION_FRACTION


def test_logical_blocks_stay_far_below_the_key_space() -> None:
    assert limits.FILE_BYTES_MAX // limits.BLOCK_SIZE_BYTES_MIN < 1 << 40


def test_the_reserve_for_freeing_operations_is_a_small_part_of_the_smallest_image() -> None:
    assert 0 < limits.RESERVE_BLOCKS_MIN < limits.RESERVE_BLOCKS_MAX
    assert limits.MEMORY_BYTES_MIN <= limits.MEMORY_BYTES_DEFAULT
