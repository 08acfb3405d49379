import struct

from hypothesis import given
from hypothesis import strategies as st

from deferfs.limits import DIRECTORY_COLLISIONS_MAX
from deferfs.ondisk.directory import COOKIE_DOT, COOKIE_DOTDOT, name_key, pack_entry, unpack_entry
from deferfs.ondisk.format import Format
from tests.unit.volumes import HASH_KEY, UUID, formats

FMT = formats()[0]
names = st.binary(min_size=1, max_size=255)


@given(names)
def test_keys_serve_as_cookies(name: bytes) -> None:
    key = name_key(FMT, name)
    assert COOKIE_DOT < COOKIE_DOTDOT < 256 <= key
    assert key + DIRECTORY_COLLISIONS_MAX - 1 <= 2**63 - 257
    assert key % DIRECTORY_COLLISIONS_MAX == 0


def test_the_hash_is_keyed() -> None:
    other = Format(1024, UUID, b"z" * 16)
    assert name_key(FMT, b"a") != name_key(other, b"a")
    assert name_key(FMT, b"a") == name_key(Format(4096, b"f" * 16, HASH_KEY), b"a")


@given(st.integers(0, 2**64 - 1), st.integers(0, 15), names)
def test_entries_round_trip(ino: int, file_type: int, name: bytes) -> None:
    assert unpack_entry(pack_entry(ino, file_type, name)) == (ino, file_type, name)


def test_an_entry_lies_as_the_docstring_of_the_node_says() -> None:
    assert pack_entry(0x0102, 8, b"n") == struct.pack("<Q", 0x0102) + b"\x08n"
