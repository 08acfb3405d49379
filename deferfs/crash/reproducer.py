"""A finding as a program of its own next to the crash image, and how to read and run it again."""

from __future__ import annotations

import ast
import hashlib
import os
import pprint
import sys
from pathlib import Path
from typing import Any, Final, TextIO

import msgspec

from deferfs.crash.actions import ACTIONS
from deferfs.crash.examination import CrashError, require_sound
from deferfs.crash.exploration import Finding, crash_of, judge_finding
from deferfs.crash.explorer import NoSuchCrash
from deferfs.crash.pages import PageDevice, split
from deferfs.crash.world import Shape, World
from deferfs.errors import DeferfsError, ImageError
from deferfs.printable import printable

_NAME: Final = "FINDING"
_PROGRAM: Final = '''#!/usr/bin/env python3
"""A crash of deferfs that breaks a promise, found by `deferfs crash explore`.

{reason}

Run this, or `deferfs crash replay` with it. Exit code: 1 if the failure still occurs, 0 if it does not.
{image}"""

from deferfs.crash.reproducer import main

{name} = {finding}

if __name__ == "__main__":
    main({name})
'''
_IMAGE: Final = "The image that the crash leaves is beside it: {image}, BLAKE2 {digest}.\n"


def write_finding(finding: Finding, directory: Path) -> Path:
    """Write the program, and the image if a crash fails; the path of the program. Existing names are skipped."""
    directory.mkdir(parents=True, exist_ok=True)
    image = crash_image(finding)
    program, file = _new_program(directory, f"crash-{finding.workload}-{finding.seed}")
    note = ""
    if image is not None:
        path = program.with_suffix(".img")
        with path.open("xb") as beside:
            beside.write(image)
        note = _IMAGE.format(image=path.name, digest=hashlib.blake2b(image, digest_size=16).hexdigest())
    literal = pprint.pformat(msgspec.to_builtins(finding), width=110, sort_dicts=False)
    reason = finding.reason.replace("\\", "\\\\").replace('"""', "'''")
    with file:
        file.write(_PROGRAM.format(reason=reason, image=note, name=_NAME, finding=literal))
    program.chmod(0o755)
    return program


def _new_program(directory: Path, stem: str) -> tuple[Path, TextIO]:
    """The first name used by neither a program nor an image, and the new file, open."""
    number = 0
    while True:
        program = directory / f"{stem}-{number}.py"
        if not os.path.lexists(program.with_suffix(".img")):
            try:
                return program, program.open("x", encoding="utf-8")
            except FileExistsError:
                pass
        number += 1


def crash_image(finding: Finding) -> bytes | None:
    """The image that the crash leaves; None when the run fails without one."""
    crash = crash_of(finding)
    if crash is None:
        return None
    world, _ = judge_finding(finding)
    return image_at(world, finding)


def image_at(world: World, finding: Finding) -> bytes:
    """The image of the crash of `finding` in a world that has performed its actions."""
    crash = crash_of(finding)
    assert crash is not None
    return world.explorer(seed=finding.seed).image_of(crash)


def read_finding(path: Path) -> Finding:
    """The finding in a program written by `write_finding`, which is not executed. ImageError when there is none."""
    try:
        tree = ast.parse(path.read_text(), str(path))
        for node in tree.body:
            if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == _NAME for t in node.targets):
                return _checked(msgspec.convert(ast.literal_eval(node.value), Finding))
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}") from error
    except (SyntaxError, ValueError, KeyError, TypeError) as error:
        raise ImageError(f"{path}: not a crash that `deferfs crash explore` wrote: {error}") from error
    raise ImageError(f"{path}: not a crash that `deferfs crash explore` wrote: it has no {_NAME}")


def _checked(finding: Finding) -> Finding:
    """The finding if its shape, crash and actions are valid; ValueError, KeyError or TypeError otherwise."""
    msgspec.convert(finding.shape, Shape)
    crash_of(finding)
    unknown = sorted({word for word, _ in finding.actions} - ACTIONS.keys())
    if unknown:
        raise ValueError(f"no such action: {', '.join(unknown)}")
    return finding


def replay(finding: Finding, image: Path | None) -> tuple[str | None, list[str]]:
    """Why the finding fails, or None when it no longer does; and notes about the image next to it."""
    world, reason = judge_finding(finding)
    notes: list[str] = []
    if image is not None and image.exists():
        data = image.read_bytes()
        crash = crash_of(finding)
        try:
            if crash is not None and image_at(world, finding) != data:
                notes.append(f"{image}: the run no longer writes this image")
        except NoSuchCrash as error:
            notes.append(f"{image}: the run no longer comes to this crash: {error}")
        try:
            require_sound(PageDevice(split(data, 4096), {}), "as it was written")
        except (CrashError, DeferfsError) as error:
            notes.append(f"{image}: {error}")
    return reason, notes


def main(found: dict[str, Any]) -> None:
    """Run a finding as a program."""
    reason, _ = replay(msgspec.convert(found, Finding), None)
    sys.stdout.write(f"{'it still fails: ' + printable(reason) if reason else 'it does not fail any more'}\n")
    sys.exit(1 if reason else 0)
