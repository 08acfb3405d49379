"""Write numbered rows to an sqlite3 database, a few rows a transaction, and note what was committed.

    sqlite_writer.py DATABASE JOURNAL_MODE TRANSACTIONS NOTES

After each commit the number of the last row is appended to NOTES, a file elsewhere, if the filesystem still answers:
SQLite takes a directory that it cannot open for one that it need not sync, and so calls a transaction committed whose
journal it has unlinked just before the filesystem died.
"""

import os
import sqlite3
import sys
from pathlib import Path

ROWS = 10


def main(database: str, mode: str, transactions: int, notes: Path) -> None:
    connection = sqlite3.connect(database, timeout=60, isolation_level=None)
    (found,) = connection.execute(f"PRAGMA journal_mode={mode}").fetchone()
    assert found == mode, f"journal mode {found}, not {mode}"
    connection.execute("PRAGMA synchronous=EXTRA")
    connection.execute("PRAGMA wal_autocheckpoint=20")
    connection.execute("CREATE TABLE IF NOT EXISTS numbers (number INTEGER PRIMARY KEY, text TEXT)")
    with notes.open("a", buffering=1) as noted:
        for first in range(0, transactions * ROWS, ROWS):
            connection.execute("BEGIN IMMEDIATE")
            rows = [(number, f"{number} " * 20) for number in range(first, first + ROWS)]
            connection.executemany("INSERT INTO numbers VALUES (?, ?)", rows)
            connection.execute("COMMIT")
            os.statvfs(database)  # asks the filesystem, and makes nothing durable
            noted.write(f"{first + ROWS - 1}\n")
    connection.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
