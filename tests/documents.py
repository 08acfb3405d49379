"""The tables of docs/ that are made from the code: `python -m tests.documents` writes them, a test compares them.

A table stands between `<!-- begin NAME: ... -->` and `<!-- end NAME -->` of its page.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec

from deferfs.contract.fields import Field, Unit, fields_of
from deferfs.contract.inode_report import InodeReport
from deferfs.contract.replies import Done, Refused
from deferfs.contract.requests import REQUESTS
from deferfs.contract.setting import Setting
from deferfs.contract.settings import ACTIONS, LIVE, OPTIONS
from deferfs.contract.statistics import Statistics, Timing, Totals
from deferfs.contract.values import Words
from deferfs.mount.host.options import IGNORED, IGNORED_PREFIXES, KERNEL_FLAGS

DOCS = Path(__file__).parents[1] / "docs"
COMMAND = "python -m tests.documents"
Rows = Iterable[tuple[str, ...]]


def table(head: tuple[str, ...], rows: Rows) -> str:
    """A table in Markdown."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(
        "|" + "|".join(cell if cell == "---" else f" {escape(cell)} " if cell else " " for cell in line) + "|"
        for line in lines
    )


def escape(cell: str) -> str:
    return cell.replace("|", "\\|")


# --- settings ---
def setting_words(setting: Setting[Any]) -> str:
    return f"{setting.help}; {setting.more}" if setting.more else setting.help


def mount_options() -> str:
    rows = [(f"`{one.form}`", one.default_text, setting_words(one)) for one in OPTIONS.values()]
    flags = ", ".join(f"`{word}`" for word in KERNEL_FLAGS)
    return table(("Option", "Default", "Meaning"), [*rows, (flags, "`nosuid`, `nodev`", "as in mount(8)")])


def ignored_options() -> str:
    words = [*IGNORED, *(f"{prefix}*" if prefix.endswith("-") else prefix for prefix in IGNORED_PREFIXES)]
    return f"Ignored, because they are meant for other programs: {', '.join(f'`{word}`' for word in words)}."


def live_settings() -> str:
    rows = []
    for one in LIVE.values():
        if one not in ACTIONS:
            rows.append((f"`{one.form}`", one.default_text, setting_words(one) if not one.field else "as for `mount`"))
    return table(("Setting", "Default", "Meaning"), rows)


def actions() -> str:
    rows: list[tuple[str, ...]] = []
    for one in LIVE.values():
        if one not in ACTIONS:
            continue
        if isinstance(one.value, Words):
            rows += [(f"`{one.key}={word.form}`", word.help) for word in one.value.words]
        else:
            rows.append((f"`{one.form}`", setting_words(one)))
    return table(("Action", "Does"), rows)


# --- statistics ---
def struct_in(field: Field) -> type[msgspec.Struct] | None:
    """The struct that the field holds, alone, in a list or optionally; not a timing, which has a section of its own."""
    candidates = [field.kind, *get_args(field.kind)] if get_origin(field.kind) is not dict else []
    for kind in candidates:
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and not issubclass(kind, Totals):
            return kind
    return None


def unit_words(field: Field) -> str:
    if isinstance(field.leaf, type) and issubclass(field.leaf, Totals):
        words = "timing" if field.leaf is Timing else "totals"
    elif field.unit is not None:
        words = field.unit.value
    else:
        words = {dict: "map", list: "list"}.get(get_origin(field.kind) or field.kind, "")
    depth, kind = 0, field.kind
    while get_origin(kind) is dict:
        depth, kind = depth + 1, get_args(kind)[-1]
    return "map of " * depth + words if words != "map" else words


def metric_words(field: Field) -> str:
    metric = field.metric
    if metric is None:
        return ""
    if field.leaf is Totals:
        names = [f"{metric.name}s_total", f"{metric.name}_seconds_total"]
    else:
        names = [f"{metric.name}_total" if field.unit is Unit.TOTAL else metric.name]
    labels = f'{{{metric.label[0]}="{metric.label[1]}"}}' if metric.label else ""
    labels = labels or (f"{{{', '.join(metric.labels)}}}" if metric.labels else "")
    return ", ".join(f"`{name}{labels}`" for name in names)


def sections(struct: type[msgspec.Struct], prefix: str, level: int, *, metrics: bool) -> Iterator[str]:
    """A heading and a table for `struct`, then for each struct in it."""
    fields = fields_of(struct)
    nested = [(field, inner) for field in fields if (inner := struct_in(field)) is not None]
    own = [field for field in fields if struct_in(field) is None]
    if prefix:
        yield f"{'#' * level} {prefix}"
    yield (struct.__doc__ or "").strip()
    head = ("Key", "Unit", "Meaning", "Metric `deferfs_...`")[: 4 if metrics else 3]
    yield table(
        head,
        [(f"`{one.name}`", unit_words(one), one.meaning, metric_words(one))[: len(head)] for one in own],
    )
    for field, inner in nested:
        name = f"{prefix}.{field.name}".removeprefix(".")
        name += "[]" if get_origin(field.kind) is list else ""
        yield from sections(inner, name, level, metrics=metrics)


def statistics() -> str:
    parts = list(sections(Statistics, "", 3, metrics=True))
    for struct in (Totals, Timing):
        parts.append(f"### {'totals' if struct is Totals else 'timing'}")
        parts += sections(struct, "", 3, metrics=False)
    return "\n\n".join(parts)


def inode_report() -> str:
    return "\n\n".join(sections(InodeReport, "", 3, metrics=False))


# --- the control socket ---
def requests() -> str:
    rows = []
    for command, kind in REQUESTS.items():
        fields = ", ".join(f"`{one.name}`: {one.meaning}" for one in fields_of(kind))
        rows.append((f"`{command}`", fields, " ".join((kind.__doc__ or "").split())))
    return table(("`command`", "Fields, all text", "Meaning, and `result`"), rows)


def replies() -> str:
    rows = []
    for kind in (Done, Refused):
        fields = ", ".join(f"`{one.name}`: {one.meaning}" for one in fields_of(kind))
        rows.append(((kind.__doc__ or "").strip(), fields))
    return table(("Reply", "Keys"), rows)


PARTS: dict[str, tuple[str, Callable[[], str]]] = {
    "mount options": ("command-line.md", mount_options),
    "ignored mount options": ("command-line.md", ignored_options),
    "settings": ("command-line.md", live_settings),
    "actions": ("command-line.md", actions),
    "statistics": ("statistics.md", statistics),
    "one inode": ("statistics.md", inode_report),
    "requests": ("control-socket.md", requests),
    "replies": ("control-socket.md", replies),
}
"""Name of each part: its page, and what makes it."""


def written(page: str, text: str) -> str:
    """`text`, that of `page`, with its parts as the code has them. ValueError when a part has no place in it."""
    for name, (home, make) in PARTS.items():
        if home != page:
            continue
        pattern = re.compile(rf"(<!-- begin {name}: [^>]*-->\n).*?(<!-- end {name} -->)", re.DOTALL)
        found = pattern.findall(text)
        if len(found) != 1:
            raise ValueError(f"{page}: no place for {name}")
        begin, end = found[0]
        text = pattern.sub(f"{begin}{make()}\n{end}".replace("\\", r"\\"), text)
    return text


def pages() -> list[str]:
    return sorted({page for page, _ in PARTS.values()})


def main() -> None:
    for page in pages():
        path = DOCS / page
        before = path.read_text()
        after = written(page, before)
        if after != before:
            path.write_text(after)
            sys.stdout.write(f"wrote {path}\n")


if __name__ == "__main__":
    main()
