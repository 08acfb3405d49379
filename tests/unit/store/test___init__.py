"""`deferfs.store` as others import it."""

import re
from pathlib import Path

import pytest

import deferfs.store

GUIDE = Path(__file__).parents[3] / "docs" / "volume-library.md"


@pytest.mark.parametrize("name", deferfs.store.__all__)
def test_the_guide_tells_of_every_public_name(name: str) -> None:
    assert getattr(deferfs.store, name) is not None
    assert re.search(rf"`[^`\n]*\b{name}\b[^`\n]*`", GUIDE.read_text())
