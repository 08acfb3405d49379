"""Commands whose help lists settings of a mount, from the table of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import click

from deferfs.contract.setting import Setting
from deferfs.contract.settings import ACTIONS, LIVE, OPTIONS
from deferfs.contract.values import Words

Rows = list[tuple[str, str]]


def settings_rows(settings: Iterable[Setting[Any]], *, defaults: bool = True) -> Rows:
    """(what to write, what it is) of each."""
    rows: Rows = []
    for setting in settings:
        if isinstance(setting.value, Words):
            rows += [(f"{setting.key}={word.form}", word.help) for word in setting.value.words]
        else:
            default = setting.default_text if defaults else ""
            rows.append((setting.form, f"{setting.help}  [{default}]" if default else setting.help))
    return rows


OPTION_SECTIONS: Final = {"Mount options of deferfs": settings_rows(OPTIONS.values())}
LIVE_SECTIONS: Final = {
    "Settings": settings_rows(setting for setting in LIVE.values() if setting not in ACTIONS),
    "Actions": settings_rows((setting for setting in LIVE.values() if setting in ACTIONS), defaults=False),
}


class CommandWithSettings(click.Command):
    """`sections`: titles and what to list below them, after the options."""

    def __init__(self, *arguments: Any, sections: dict[str, Rows], **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self.sections = sections

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The sections, then the epilog."""
        for title, rows in self.sections.items():
            with formatter.section(title):
                formatter.write_dl(rows)
        super().format_epilog(ctx, formatter)
