"""Disk images that share common pages.

An image is a list of pages of equal size. A crash state is a *patch*: the few pages in which it differs from such a
list. Each (page, content) has a random number, and an image is named by the exclusive or of the numbers of its pages:
so naming a state costs time in proportion to its patch, and equal images have equal names however they came about.

**Invariant:** a list of pages is only changed by `Names.advance`, between two uses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from deferfs.device.base import Buffer, check_range, check_write

Pages = list[bytes]
Patch = dict[int, bytes]
"""Page number -> content."""
Part = tuple[int, int, bytes]
"""(page, first byte in it, bytes)."""

_NAME_BYTES: Final = 16


def split(image: Buffer, page_bytes: int) -> Pages:
    """The pages of an image; the last one may be shorter."""
    data = bytes(image)
    return [data[at : at + page_bytes] for at in range(0, len(data), page_bytes)]


def patched(pages: Pages, patch: Patch) -> Pages:
    """New pages with `patch` on them."""
    changed = pages.copy()
    for page, content in patch.items():
        changed[page] = content
    return changed


class Names:
    """Names of the image `pages`, and of those that differ from it by a patch.

    `of_interest` selects pages for a second name that depends only on these.
    """

    def __init__(self, pages: Pages, of_interest: frozenset[int]) -> None:
        self.pages = pages
        self.of_interest = of_interest
        self._numbers: list[dict[bytes, int]] = [{} for _ in pages]
        """Of each page, by content: those in use so far, `_known` in all."""
        self._known = 0
        self._of_pages = [self._number(page, content) for page, content in enumerate(pages)]
        """Of each page of `pages`, that of its content."""
        self.image = 0
        self.interesting = 0
        for page, number in enumerate(self._of_pages):
            self.image ^= number
            if page in of_interest:
                self.interesting ^= number

    def _number(self, page: int, content: bytes) -> int:
        digest = hashlib.blake2b(content, digest_size=_NAME_BYTES, salt=page.to_bytes(16, "little"))
        found = self._numbers[page][content] = int.from_bytes(digest.digest(), "little")
        self._known += 1
        return found

    def of(self, patch: Patch) -> tuple[int, int]:
        """The two names of the image with `patch` on it."""
        image, interesting = self.image, self.interesting
        numbers, of_pages, of_interest = self._numbers, self._of_pages, self.of_interest
        for page, content in patch.items():
            number = numbers[page].get(content)
            if number is None:
                number = self._number(page, content)
            change = number ^ of_pages[page]
            image ^= change
            if page in of_interest:
                interesting ^= change
        return image, interesting

    def advance(self, patch: Patch) -> None:
        """Make the image with `patch` on it the base."""
        self.image, self.interesting = self.of(patch)
        for page, content in patch.items():
            self.pages[page] = content
            self._of_pages[page] = self._numbers[page][content]
        if self._known > 16 * len(self.pages):
            for numbers in self._numbers:
                numbers.clear()
            self._known = 0


class PageDevice:
    """A device on pages that it never changes: writes go into `written`.

    If `reads` is a dict, every page read is recorded in it as it was before any write. Everything is durable at once.
    """

    def __init__(self, pages: Sequence[bytes], patch: Mapping[int, bytes], *, name: str = "crash state") -> None:
        self.name = name
        self.writable = True
        self.pages = pages
        self.page_bytes = len(pages[0])
        self.size = (len(pages) - 1) * self.page_bytes + len(pages[-1])
        self.patch = patch
        self.written: Patch = {}
        self.reads: Patch | None = None

    def fork(self) -> PageDevice:
        """A device with the same content, without recorded writes and reads."""
        return PageDevice(self.pages, {**self.patch, **self.written}, name=self.name)

    def page(self, number: int) -> bytes:
        """One page, without recording the read."""
        found = self.written.get(number)
        if found is None:
            found = self.patch.get(number)
        return self.pages[number] if found is None else found

    def _read_page(self, number: int) -> bytes:
        found = self.written.get(number)
        if found is not None:
            return found
        found = self.patch.get(number)
        if found is None:
            found = self.pages[number]
        if self.reads is not None:
            self.reads[number] = found
        return found

    def _read_pages(self, first: int, end: int) -> list[bytes]:
        numbers = range(first, end)
        found = list(self.pages[first:end])
        for changed in (self.patch, self.written):
            for number in changed.keys() & numbers if changed else ():
                found[number - first] = changed[number]
        if self.reads is not None:
            # what has been written is no longer what was there before
            self.reads.update(
                (number, content) for number, content in zip(numbers, found, strict=True) if number not in self.written
            )
        return found

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`."""
        check_range(self, offset, length)
        first, inside = divmod(offset, self.page_bytes)
        if not length:
            return b""
        last = (offset + length - 1) // self.page_bytes
        if first == last:
            found = self._read_page(first)
            return found if length == len(found) else found[inside : inside + length]
        data = b"".join(self._read_pages(first, last + 1))
        return data if not inside and length == len(data) else data[inside : inside + length]

    def read_nowait(self, offset: int, length: int) -> bytes | None:
        """As `read`: memory never blocks."""
        return self.read(offset, length)

    def write(self, offset: int, data: Buffer) -> None:
        """Write all of `data` at `offset`."""
        check_write(self, offset, len(data))
        put(self.written, self._read_page, self.page_bytes, offset, bytes(data))

    def writev(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """Write `buffers` one after the other from `offset` on."""
        self.write(offset, b"".join(buffers))

    def flush(self) -> None:
        """Nothing to do."""

    def discard(self, offset: int, length: int) -> None:
        """Zero the range."""
        self.write(offset, bytes(length))

    def close(self) -> None:
        """Nothing to release."""

    def image(self) -> bytes:
        """The whole contents."""
        return b"".join(map(self.page, range(len(self.pages))))


def cut(offset: int, data: bytes, page_bytes: int) -> list[Part]:
    """The parts of a write."""
    parts: list[Part] = []
    at = 0
    while at < len(data):
        page, inside = divmod(offset + at, page_bytes)
        part = data[at : at + page_bytes - inside]
        parts.append((page, inside, part))
        at += len(part)
    return parts


def lay(patch: Patch, content: Callable[[int], bytes], page_bytes: int, parts: list[Part]) -> None:
    """Apply the parts of a write to `patch`; `content(page)` returns the content of a page that is not in it."""
    for page, inside, part in parts:
        if len(part) == page_bytes:
            patch[page] = part
            continue
        old = patch.get(page)
        if old is None:
            old = content(page)
        patch[page] = old[:inside] + part + old[inside + len(part) :]


def put(patch: Patch, content: Callable[[int], bytes], page_bytes: int, offset: int, data: bytes) -> None:
    """Apply `data` at `offset` to `patch`, as `lay` does."""
    lay(patch, content, page_bytes, cut(offset, data, page_bytes))
