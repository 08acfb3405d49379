import hashlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deferfs.limits import DIRECTORY_WINDOW
from deferfs.ondisk.directory import (
    COOKIE_DOT,
    COOKIE_DOTDOT,
    keys_end,
    may_have_key,
    name_key,
    pack_entry,
    unpack_entry,
)
from deferfs.ondisk.format import Format
from deferfs.ondisk.inode import FLAG_KEYS31
from tests.unit.volumes import HASH_KEY, UUID, formats

FMT = formats()[0]
names = st.binary(min_size=1, max_size=255)


@given(names)
def test_keys_serve_as_cookies(name: bytes) -> None:
    key = name_key(FMT, name, FLAG_KEYS31)
    assert COOKIE_DOT < COOKIE_DOTDOT < 256 <= key
    assert key + DIRECTORY_WINDOW - 1 <= 2**31 - 258 < keys_end(FLAG_KEYS31) == 2**31


@given(names)
def test_hashes_of_55_bits_leave_the_low_byte_of_the_key(name: bytes) -> None:
    key = name_key(FMT, name, 0)
    assert COOKIE_DOT < COOKIE_DOTDOT < 256 <= key
    assert key + DIRECTORY_WINDOW - 1 <= 2**63 - 257 < keys_end(0) == 2**63
    assert key % DIRECTORY_WINDOW == 0


@pytest.mark.parametrize("digest", [b"\0" * 8, b"\xff" * 8, *(struct.pack("<Q", 2**31 - 768 + d) for d in (-1, 0, 1))])
def test_the_first_and_the_last_hash(monkeypatch: pytest.MonkeyPatch, digest: bytes) -> None:
    """Hardly ever met by chance."""

    class Hash:
        def __init__(self, *arguments: object, **named: object) -> None:
            pass

        def digest(self) -> bytes:
            return digest

    monkeypatch.setattr(hashlib, "blake2b", Hash)
    wanted = int.from_bytes(digest, "little") % (2**31 - 768) + 256
    fresh = Format(1024, UUID, HASH_KEY)  # nothing is remembered of it
    assert name_key(fresh, b"name", FLAG_KEYS31) == wanted
    assert 256 <= wanted <= 2**31 - 513


def test_a_name_may_have_the_keys_of_its_window() -> None:
    for flags in (0, FLAG_KEYS31):
        low = name_key(FMT, b"a", flags)
        found = [may_have_key(FMT, b"a", flags, low + distance) for distance in (-1, 0, 255, 256)]
        assert found == [False, True, True, False]


@pytest.mark.parametrize("flags", [0, FLAG_KEYS31])
def test_the_hash_is_keyed(flags: int) -> None:
    other = Format(1024, UUID, b"z" * 16)
    assert name_key(FMT, b"a", flags) != name_key(other, b"a", flags)
    assert name_key(FMT, b"a", flags) == name_key(Format(4096, b"f" * 16, HASH_KEY), b"a", flags)


def test_the_hashes_are_as_documented() -> None:
    digest = int.from_bytes(hashlib.blake2b(b"a", digest_size=8, key=HASH_KEY).digest(), "little")
    assert name_key(FMT, b"a", FLAG_KEYS31) == digest % (2**31 - 768) + 256
    assert name_key(FMT, b"a", 0) == 256 * (digest % (2**55 - 2) + 1)


@given(st.integers(0, 2**64 - 1), st.integers(0, 15), names)
def test_entries_round_trip(ino: int, file_type: int, name: bytes) -> None:
    assert unpack_entry(pack_entry(ino, file_type, name)) == (ino, file_type, name)


def test_an_entry_lies_as_the_docstring_of_the_node_says() -> None:
    assert pack_entry(0x0102, 8, b"n") == struct.pack("<Q", 0x0102) + b"\x08n"
