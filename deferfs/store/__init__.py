"""Block cache, transactions, journal, recovery, free space and the structures kept in blocks. Sans-IO."""

from __future__ import annotations

from typing import Final

COMPILED: Final = not __file__.endswith(".py")
"""Whether the core runs compiled, or as the Python that it is written in."""
