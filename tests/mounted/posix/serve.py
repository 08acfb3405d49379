"""Answers rows with what each of their steps gives: `python -m tests.mounted.posix.serve DIRECTORY`.

Reads a row a line, runs it in a fresh directory below DIRECTORY, removes that, writes a line of JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import sys

from tests.mounted.posix import (  # noqa: F401
    calls_attributes,
    calls_compared,
    calls_files,
    calls_names,
    calls_streams,
)
from tests.mounted.posix.language import read_row
from tests.mounted.posix.machine import outcomes


def main(directory: str) -> None:
    """Until the end of input."""
    for number, line in enumerate(sys.stdin):
        place = os.path.join(directory, str(number))
        os.mkdir(place)
        os.chmod(place, 0o777)
        os.chdir(place)
        found = outcomes(read_row(str(number), line.strip()))
        os.chdir(directory)
        shutil.rmtree(place)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
