"""`deferfs.reclaim` as others import it: light, and with the names that its guide tells of."""

import subprocess
import sys
from pathlib import Path

import pytest

import deferfs.reclaim

GUIDE = Path(__file__).parents[3] / "docs" / "reclaim-library.md"


def test_importing_it_brings_neither_a_store_nor_fuse_nor_an_event_loop() -> None:
    script = "import sys, deferfs.reclaim; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()
    assert "deferfs.reclaim.gc" in loaded
    heavy = ("pyfuse3", "trio", "attrs", "attr", "msgspec", "bitarray")
    ours = ("deferfs.store", "deferfs.ondisk", "deferfs.device", "deferfs.volume", "deferfs.mount")
    assert [name for name in loaded if name.startswith(ours) or name.partition(".")[0] in heavy] == []


@pytest.mark.parametrize("name", deferfs.reclaim.__all__)
def test_the_guide_tells_of_every_public_name(name: str) -> None:
    assert getattr(deferfs.reclaim, name) is not None
    assert f"`{name}" in GUIDE.read_text()
