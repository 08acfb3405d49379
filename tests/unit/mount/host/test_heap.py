import subprocess
import sys

PROGRAM = """
from deferfs.mount.host import heap
from deferfs.mount.host.resident import resident
print(heap.configure())
buffers = [bytearray(b"x") * 100_000 for _ in range(400)]
above = bytearray(b"x") * 100_000
del buffers
before = resident().now_bytes
print(heap.trim())
print(before - resident().now_bytes)
"""


def test_free_pages_inside_the_heap_go_back_to_the_kernel() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=True, stdout=subprocess.PIPE, text=True)
    configured, trimmed, given_back = done.stdout.split()
    assert (configured, trimmed) == ("True", "True")
    assert int(given_back) > 20 << 20
