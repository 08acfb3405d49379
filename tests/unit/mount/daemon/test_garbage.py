"""The cycle collector of a daemon, in a process of its own: it is one for the whole process."""

from __future__ import annotations

import subprocess
import sys
import textwrap

COMMON = """
import gc
import weakref
from deferfs.mount.daemon import garbage

class Node:
    def __init__(self):
        self.me = self

def allocate(count):
    return [[] for _ in range(count)]

garbage.collect_briefly()
"""


def run(code: str) -> None:
    subprocess.run([sys.executable, "-c", COMMON + textwrap.dedent(code)], check=True)


def test_what_a_collection_leaves_is_not_looked_at_again() -> None:
    run("""
        kept, most = [], 0
        for _ in range(50):
            kept.append(allocate(garbage.YOUNG_OBJECTS))
            most = max(most, gc.get_count()[0] + len(gc.get_objects(1)) + len(gc.get_objects(2)))
        assert gc.get_stats()[0]["collections"] >= 50, gc.get_stats()
        assert gc.get_freeze_count() > 50 * garbage.YOUNG_OBJECTS
        assert most <= 2 * garbage.YOUNG_OBJECTS, most
    """)


def test_new_garbage_is_found_by_the_next_collection() -> None:
    run("""
        found = weakref.ref(Node())
        kept = allocate(2 * garbage.YOUNG_OBJECTS)
        assert found() is None
    """)


def test_older_garbage_is_found_by_a_full_collection_when_that_is_due() -> None:
    run("""
        node = Node()
        kept = allocate(2 * garbage.YOUNG_OBJECTS)
        found = weakref.ref(node)
        del node
        garbage.collect_all_if_due()
        assert found() is not None, "there have been few collections"
        garbage.FULL_AFTER = 100
        kept = [allocate(garbage.YOUNG_OBJECTS) for _ in range(garbage.FULL_AFTER + 10)]
        assert found() is not None, "only a full collection looks at it"
        garbage.collect_all_if_due()
        assert found() is None
        kept += allocate(2 * garbage.YOUNG_OBJECTS)
        assert not gc.get_objects(1) and not gc.get_objects(2)
    """)
