"""Read an sqlite3 database while it is written: each look must show whole transactions.

    sqlite_reader.py DATABASE JOURNAL_MODE TRANSACTIONS

Ends when all transactions of sqlite_writer.py have been seen.
"""

import sqlite3
import sys

ROWS = 10


def main(database: str, transactions: int) -> None:
    connection = sqlite3.connect(database, timeout=60, isolation_level=None)
    seen = 0
    while seen < transactions * ROWS:
        try:
            count, total, longest = connection.execute(
                "SELECT count(*), total(number), max(length(text) - 20 * length(number)) FROM numbers"
            ).fetchone()
        except sqlite3.OperationalError as error:
            if "no such table" not in str(error):
                raise
            continue
        assert count % ROWS == 0, f"{count} rows: a part of a transaction"
        assert total == count * (count - 1) / 2, f"{count} rows, but their sum is {total}"
        assert longest in (None, 20), f"damaged text: {longest}"
        assert count >= seen, f"{count} rows after {seen}"
        seen = count


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[3]))
