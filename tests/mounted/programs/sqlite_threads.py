"""`sqlite_threads.py DATABASE MODE THREADS TRANSACTIONS`: threads with a connection each insert numbers and read."""

from __future__ import annotations

import sqlite3
import sys
from threading import Thread


def work(path: str, mode: str, transactions: int, errors: list[Exception]) -> None:
    try:
        connection = sqlite3.connect(path, timeout=60)
        connection.execute(f"PRAGMA journal_mode={mode}")
        for number in range(transactions):
            with connection:
                connection.execute("INSERT INTO numbers VALUES (?)", (number,))
            connection.execute("SELECT count(*) FROM numbers").fetchone()
        connection.close()
    except Exception as error:
        errors.append(error)


def main(path: str, mode: str, threads: int, transactions: int) -> int:
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA journal_mode={mode}")
        connection.execute("CREATE TABLE numbers (number INTEGER)")
    connection.close()
    errors: list[Exception] = []
    workers = [Thread(target=work, args=(path, mode, transactions, errors)) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for error in errors:
        print(error, file=sys.stderr)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
