"""The description of a setting: its key, the syntax of its value, and its help texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from deferfs.contract.values import Value, WrongValueError
from deferfs.errors import UsageError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Setting(Generic[T]):
    """One setting.

    `value` parses it, and its `form` names the unit (`SECONDS`). `default`: in that unit; None when there is none, or
    when it is computed (`default_words` then says how). `help`: a short description for `--help`; `more`: what the
    documentation adds, in Markdown. `field`: the field of `MountOptions`, for a mount option. `live`: whether
    `deferfs ctl` accepts it.
    """

    key: str
    value: Value[T]
    default: T
    help: str
    more: str = ""
    default_words: str = ""
    field: str = ""
    live: bool = False

    @property
    def form(self) -> str:
        """`KEY=VALUE` for help texts."""
        return f"{self.key}={self.value.form}" if self.value.form else self.key

    @property
    def default_text(self) -> str:
        """The default for help texts; empty when there is none."""
        if self.default_words or self.default is None:
            return self.default_words
        return self.value.text(self.default)

    def option(self, text: str | None) -> T:
        """Parse the value of a mount option; None is an option without `=`. UsageError names option and rule."""
        if text is not None and not self.value.form:
            raise UsageError(f"mount option {self.key} takes no value (got {text!r})")
        if not text and self.value.form:
            raise UsageError(f"mount option {self.key} needs a value ({self.key}=...)")
        try:
            return self.value.parse(text or "")
        except WrongValueError as error:
            raise UsageError(f"mount option {self.key}={text}: {error}") from None
        except UsageError as error:
            raise UsageError(f"mount option {self.key}: {error}") from None

    def change(self, text: str) -> T:
        """Parse the value of a change while mounted. UsageError names setting and rule."""
        try:
            return self.value.parse(text)
        except WrongValueError as error:
            raise UsageError(f"{self.key} {error}, not {text!r}") from None
        except UsageError as error:
            raise UsageError(f"{self.key}: {error}") from None
