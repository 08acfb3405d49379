"""All damage there is: each family registers its cases when it is imported."""

from tests.unit.check.damage import (  # noqa: F401
    CASES,
    directories,
    inodes,
    log,
    orphans,
    space,
    superblock,
    table,
    trees,
)

__all__ = ["CASES"]
