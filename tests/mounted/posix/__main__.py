"""Run the tables in a directory: `python -m tests.mounted.posix NAME DIRECTORY [TABLE...]`.

NAME says which filesystem it is (`deferfs,writeback`, `ext4`, ...); DIRECTORY must be empty. Prints each row that
fails, and the number of rows at the end. Root only: rows become other users.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.mounted.posix import calls_attributes, calls_files, calls_names, calls_streams  # noqa: F401
from tests.mounted.posix.language import Row, read_table
from tests.mounted.posix.machine import SHOWN_MAX, run_rows

TABLES = Path(__file__).parent / "tables"


def rows_for(names: str, tables: list[str]) -> list[Row]:
    """The rows of these tables (of all, if none is given) that are written for a filesystem with these names."""
    paths = [TABLES / f"{table}.rows" for table in tables] or sorted(TABLES.glob("*.rows"))
    return [row for path in paths for row in read_table(path) if row.is_for(frozenset(names.split(",")))]


def main(names: str, directory: str, *tables: str) -> int:
    """The exit code."""
    rows = rows_for(names, list(tables))
    failed = 0
    for row, wrong in run_rows(rows, directory):
        failed += 1
        print(f"{row.where}: {row.text[:SHOWN_MAX]}\n    {wrong}", flush=True)
    print(f"{len(rows)} rows, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
