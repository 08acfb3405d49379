"""The syntax of setting values, for mount options and `deferfs ctl` alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from deferfs.errors import UsageError
from deferfs.units import parse_size

W = TypeVar("W", bound=str)
T_co = TypeVar("T_co", covariant=True)


class WrongValueError(UsageError):
    """An invalid value. The text is the rule, `must be on or off`; the caller adds the name of the setting."""


class Value(Protocol[T_co]):
    """A kind of value."""

    @property
    def form(self) -> str:
        """Its syntax for help texts: `SECONDS`, `on|off`."""

    def parse(self, text: str) -> T_co:
        """Parse a value. WrongValueError, or a UsageError that is a complete sentence."""

    def text(self, value: Any) -> str:
        """Format a value."""


@dataclass(frozen=True, slots=True)
class Choice(Generic[W]):
    """One of several words."""

    words: tuple[W, ...]

    @property
    def form(self) -> str:
        """`a|b`."""
        return "|".join(self.words)

    def parse(self, text: str) -> W:
        """The word."""
        for word in self.words:
            if word == text:
                return word
        raise WrongValueError(f"must be {either(self.words)}")

    def text(self, value: W) -> str:
        """The word."""
        return value


@dataclass(frozen=True, slots=True)
class Switch:
    """On or off, by two words."""

    on: str = "on"
    off: str = "off"

    @property
    def form(self) -> str:
        """`on|off`."""
        return f"{self.on}|{self.off}"

    def parse(self, text: str) -> bool:
        """True for the word `on`."""
        if text not in (self.on, self.off):
            raise WrongValueError(f"must be {self.on} or {self.off}")
        return text == self.on

    def text(self, value: bool) -> str:
        """The word for `value`."""
        return self.on if value else self.off


@dataclass(frozen=True, slots=True)
class Present:
    """No value: the presence of the key means on."""

    form: str = ""

    def parse(self, text: str) -> bool:
        """True; the text must be empty."""
        if text:
            raise WrongValueError("takes no value")
        return True

    def text(self, value: bool) -> str:
        """The state, `on` or `off`, as there is no value."""
        return "on" if value else "off"


@dataclass(frozen=True, slots=True)
class Real:
    """A number between bounds, possibly fractional. `zero`, if not empty, is the meaning of 0, which is then
    allowed."""

    least: float
    most: float
    form: str = "SECONDS"
    zero: str = ""

    def parse(self, text: str) -> float:
        """The number."""
        try:
            number = float(text)
        except ValueError:
            number = -1
        if self.least <= number <= self.most or (self.zero and number == 0):
            return number
        zero = f"0 ({self.zero}) or " if self.zero else ""
        raise WrongValueError(f"must be {zero}a number from {self.least:g} to {self.most:g}")

    def text(self, value: float) -> str:
        """Decimal, without an exponent."""
        return f"{value:.15g}"


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number between bounds."""

    least: int
    most: int
    form: str = "N"

    def parse(self, text: str) -> int:
        """The number."""
        number = int(text) if text.isascii() and text.isdigit() else -1
        if not self.least <= number <= self.most:
            raise WrongValueError(f"must be a whole number from {self.least} to {self.most}")
        return number

    def text(self, value: int) -> str:
        """The number in decimal digits."""
        return str(value)


@dataclass(frozen=True, slots=True)
class Size:
    """A size such as `64M`, in bytes; `least` is a whole number of MiB."""

    least: int = 0
    form: str = "SIZE"

    def parse(self, text: str) -> int:
        """The size in bytes. WrongValueError when malformed or below `least`."""
        size = parse_size(text)
        if size < self.least:
            raise WrongValueError(f"must be at least {self.least >> 20}M")
        return size

    def text(self, value: int) -> str:
        """The size with the largest unit that leaves a whole number."""
        units = ("", "K", "M", "G", "T", "P")
        power = next((power for power in range(5, 0, -1) if value and not value % (1 << 10 * power)), 0)
        return f"{value >> 10 * power}{units[power]}"


@dataclass(frozen=True, slots=True)
class File:
    """The path of a file, or a word that stands for none (`instead`)."""

    instead: str = ""

    @property
    def form(self) -> str:
        """`FILE`."""
        return f"FILE|{self.instead}" if self.instead else "FILE"

    def parse(self, text: str) -> str:
        """The path, unchanged."""
        return text

    def text(self, value: str) -> str:
        """The path, unchanged."""
        return value


@dataclass(frozen=True, slots=True)
class Word:
    """A word for an action, and its description; `argument`: what follows after a colon."""

    word: str
    help: str
    argument: str = ""

    @property
    def form(self) -> str:
        """`flush:INODE`."""
        return f"{self.word}:{self.argument}" if self.argument else self.word


@dataclass(frozen=True, slots=True)
class Words:
    """One of several words for actions."""

    words: tuple[Word, ...]

    @property
    def form(self) -> str:
        """`a|b:N`."""
        return "|".join(word.form for word in self.words)

    def parse(self, text: str) -> tuple[str, str]:
        """The word and its argument."""
        verb, colon, argument = text.partition(":")
        for word in self.words:
            if word.word == verb and bool(word.argument) == bool(colon) == bool(argument):
                return verb, argument
        raise WrongValueError(f"must be {either([word.form for word in self.words])}")

    def text(self, value: tuple[str, str]) -> str:
        """The word, and its argument after a colon."""
        return ":".join(part for part in value if part)


def either(words: Sequence[str]) -> str:
    """`a`, `a or b`, `a, b or c`."""
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last
