"""Fill the kernel's dentry cache on behalf of this process's memory cgroup.

    dentries.py TREE SCRATCH

Obeys lines on standard input, and answers each with itself when it is done:
walk    look up every file below TREE: the dentries, and what they hold, are charged to the cgroup
press   look up names in SCRATCH that do not exist, until the kernel has to reclaim dentries
"""

import itertools
import os
import sys

NAMES = 100_000
_numbers = itertools.count()


def walk(tree: str) -> None:
    for directory, _, names in os.walk(tree):
        for name in names:
            os.stat(os.path.join(directory, name))


def press(scratch: str) -> None:
    for number in itertools.islice(_numbers, NAMES):
        try:
            os.stat(f"{scratch}/{number:0100d}")
        except FileNotFoundError:
            pass


def main() -> None:
    tree, scratch = sys.argv[1:]
    for line in sys.stdin:
        if line == "walk\n":
            walk(tree)
        else:
            press(scratch)
        sys.stdout.write(line)
        sys.stdout.flush()


main()
