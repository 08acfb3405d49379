import os
from pathlib import Path

import pytest

from deferfs.measure.victims import BLOCK_BYTES, VICTIM_EXTENTS, make_victims, victim_path


@pytest.mark.parametrize("count", [1, 16, 20])
def test_victims_are_made_of_blocks_and_holes(tmp_path: Path, count: int) -> None:
    make_victims(tmp_path, count)
    made = sorted(path for path in (tmp_path / "victims").rglob("*") if path.is_file())
    assert made == [Path(victim_path(str(tmp_path), index)) for index in range(count)]
    with made[-1].open("rb") as file:
        data = file.read()
    assert len(data) == (2 * VICTIM_EXTENTS - 1) * BLOCK_BYTES
    assert any(data[:BLOCK_BYTES])
    assert not any(data[BLOCK_BYTES : 2 * BLOCK_BYTES])


def test_without_direct_io_they_are_written_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really_open = os.open

    def refuse_direct(path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_DIRECT:
            raise OSError(22, "Invalid argument")
        return really_open(path, flags, mode)

    monkeypatch.setattr(os, "open", refuse_direct)
    make_victims(tmp_path, 1)
    assert os.path.getsize(victim_path(str(tmp_path), 0)) > 0
