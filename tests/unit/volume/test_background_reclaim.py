"""Background reclaim by itself: the size of its pieces. When it is due, and where it ends, crash exploration tests."""

from __future__ import annotations

import pytest

from deferfs.volume.background_reclaim import PIECE_BYTES
from deferfs.volume.waits import Task, Turn
from tests.unit.volumes import fresh_driver, make


def test_others_run_between_two_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = fresh_driver()
    make(driver, b"file")
    engine, pieces = driver.engine, [PIECE_BYTES, PIECE_BYTES, 0]
    wanted: list[int] = []

    def reclaim(wanted_bytes: int) -> Task[int]:
        wanted.append(wanted_bytes)
        yield from ()
        return pieces[len(wanted) - 1]

    monkeypatch.setattr(engine.eviction, "background_reclaim", reclaim)
    monkeypatch.setattr(type(engine.store.memory), "used", property(lambda memory: 1 << 40))
    waits = list(engine.reclaim.run())
    assert wanted == [PIECE_BYTES] * 3
    assert sum(isinstance(wait, Turn) for wait in waits) == 3
