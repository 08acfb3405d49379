from pathlib import Path

import pytest

from deferfs.measure.work.victims import BLOCK, VICTIM_EXTENTS, make_victims, victim_path


@pytest.mark.parametrize("count", [1, 16, 20])
def test_victims_are_fragmented(tmp_path: Path, count: int) -> None:
    make_victims(tmp_path, count)
    made = sorted(path for path in (tmp_path / "victims").rglob("*") if path.is_file())
    assert made == [Path(victim_path(str(tmp_path), index)) for index in range(count)]
    for path in made:
        assert path.stat().st_size == (2 * VICTIM_EXTENTS - 1) * len(BLOCK)


def test_victims_have_holes_between_their_blocks(tmp_path: Path) -> None:
    make_victims(tmp_path, 1)
    found = Path(victim_path(str(tmp_path), 0)).stat()
    assert found.st_blocks * 512 <= found.st_size * 3 // 4
