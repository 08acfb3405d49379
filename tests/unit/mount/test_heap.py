import subprocess
import sys

from deferfs.mount import heap

PROGRAM = """
from deferfs.mount import heap
from deferfs.mount.resident import resident
print(heap.configure())
for _ in range(3):
    buffers = [bytearray(b"x") * (1 << 20) for _ in range(64)]
    small = [object() for _ in range(10)]
    del buffers
print(resident().now_bytes)
"""


def test_large_buffers_go_back_to_the_kernel_when_they_are_freed() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=True, stdout=subprocess.PIPE, text=True)
    accepted, resident_bytes = done.stdout.split()
    assert accepted == "True"
    assert int(resident_bytes) < 48 << 20


def test_the_thresholds_are_in_order() -> None:
    assert 0 < heap.MMAP_THRESHOLD_BYTES <= heap.TRIM_THRESHOLD_BYTES
