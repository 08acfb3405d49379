import pytest

from deferfs.limits import HANDLERS_MAX
from deferfs.mount.daemon.serve import READER_BYTES, READERS_FEW, readers_max


@pytest.mark.parametrize(
    ("budget", "readers"),
    [(0, READERS_FEW), (40 * READER_BYTES, 40), (1 << 40, HANDLERS_MAX)],
)
def test_the_buffers_of_all_requests_under_way_fit_into_the_budget(budget: int, readers: int) -> None:
    assert readers_max(budget) == readers
