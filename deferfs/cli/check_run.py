"""Running a check: get the image, recover it if asked to, look at everything, say what was found."""

from __future__ import annotations

import enum
from typing import Final

from deferfs.check import Report, check_image
from deferfs.cli.output import json_path, say, say_json, tell
from deferfs.mount.image import load_superblock, open_image
from deferfs.mount.recover import recover_image

EXIT_CLEAN: Final = 0
EXIT_PROBLEMS_LEFT: Final = 4


class Mode(enum.Enum):
    """What the check may do: only look; recover (`-p`); recover and check everything (`-y`)."""

    LOOK = "n"
    PREEN = "p"
    REPAIR = "y"


def run_check(image: str, mode: Mode, *, force: bool, verbose: bool, as_json: bool) -> int:
    """Check the image at `image`; the exit code. ImageError or ImageInUseError when it cannot be checked."""
    device = open_image(image, writable=mode is not Mode.LOOK, notice=tell)
    try:
        recovered = False
        if mode is not Mode.LOOK:
            recovered = not load_superblock(device).clean
            if recovered:
                recover_image(device)  # closes it
                device = open_image(image, writable=False, notice=tell)
            elif mode is Mode.PREEN and not force:
                _say_clean(image, as_json=as_json)
                return EXIT_CLEAN
        report = check_image(device)
    finally:
        device.close()
    code = EXIT_CLEAN if report.clean and report.complete else EXIT_PROBLEMS_LEFT
    if as_json:
        say_json(_json(image, report, code, recovered=recovered))
    else:
        _say_report(image, report, recovered=recovered, verbose=verbose)
        if code and mode is not Mode.LOOK:
            tell(f"{image}: this version cannot repair; copy what can be read to a new image")
    return code


def _say_clean(image: str, *, as_json: bool) -> None:
    if as_json:
        say_json({**json_path("image", image), "clean": True, "checked": False, "exit_code": 0})
    else:
        say(f"{image}: clean; not checked (-f checks everything)")


def _say_report(image: str, report: Report, *, recovered: bool, verbose: bool) -> None:
    for problem in report.problems:
        say(f"{image}: [{problem.number}] {problem.message}")
    for code, count in report.suppressed.items():
        say(f"{image}: {code}: {count} more")
    if recovered:
        say(f"{image}: recovered")
    counts = report.counts
    if verbose:
        say(
            f"{image}: {counts.directories} directories, {counts.files} files, {counts.symlinks} symlinks, "
            f"{counts.others} others, {counts.orphans} orphans"
        )
        say(
            f"{image}: {counts.blocks_used} blocks used, {counts.free_blocks} free, "
            f"{counts.transactions} transactions to replay"
        )
    if not report.complete:
        say(f"{image}: damage kept parts from being checked")
    outcome = "clean" if report.clean else f"{report.found} problem{'s' * (report.found != 1)}"
    say(f"{image}: {outcome}, {counts.inodes} inodes, {counts.free_blocks} free blocks")


def _json(image: str, report: Report, code: int, *, recovered: bool) -> dict[str, object]:
    counts = report.counts
    return {
        **json_path("image", image),
        "clean": report.clean,
        "checked": True,
        "complete": report.complete,
        "recovered": recovered,
        "exit_code": code,
        "problems": [
            {
                "number": problem.number,
                "code": problem.code,
                "message": problem.message,
                "where": dict(problem.where),
            }
            for problem in report.problems
        ],
        "suppressed": dict(report.suppressed),
        "counts": {name: getattr(counts, name) for name in counts.__slots__},
    }
