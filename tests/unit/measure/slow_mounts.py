"""A slow mount without a machine: commands are only noted, and the daemon's and the disk's numbers are given."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from deferfs.contract.requests import Answer, Query, Set
from deferfs.measure.host.cgroup import Hierarchy
from deferfs.measure.mounts import filesystems, slow_mount
from deferfs.measure.scenario import Surroundings
from deferfs.measure.slow_disk import SlowDisk
from tests.statistics_sample import answer

STATISTICS = answer(memory={"budget_bytes": 4 << 20, "promised_bytes": 70 << 20})
"""What the daemon answers."""


class FakeDisk:
    """In the place of `SlowDisk`."""

    def __init__(self, image: Path, preset: str, scratch: Path, own: Callable[[int], None], seed: int = 0) -> None:
        self.device = image
        self.presets = [preset]
        self.numbers = dict.fromkeys(("reads", "writes", "flushes", "read_bytes", "write_bytes"), 0)
        self._entered = False

    def __enter__(self) -> FakeDisk:
        self._entered = True
        return self

    def __exit__(self, *_: object) -> None:
        self._entered = False

    def is_attached(self) -> bool:
        """Whether its block lasts."""
        return self._entered

    def set_preset(self, preset: str) -> None:
        self.presets.append(preset)

    def counters(self) -> dict[str, int]:
        return dict(self.numbers)


class Machine:
    """What was run, in order; `fail` raises in the command whose words hold a text."""

    def __init__(self) -> None:
        self.commands: list[str] = []
        self.failures: dict[str, BaseException] = {}
        self.statistics = copy.deepcopy(STATISTICS)
        self.settings: list[tuple[str, str]] = []
        self.mounted: set[str] = set()
        self.disks: list[FakeDisk] = []
        self.owned: list[int] = []

    def run(self, words: Sequence[str], seconds_max: float = 0.0, enter: object = None) -> str:
        self.commands.append(" ".join(words))
        failure = self.failures.pop(words[0], None)
        if words[0] == "mount" and not failure:
            self.mounted.add(words[2])
        if words[0] == "umount" and not failure:
            self.mounted.discard(words[1])
        if failure is not None:
            raise failure
        return ""

    def copy_image(self, source: Path, destination: Path) -> None:
        destination.write_bytes(source.read_bytes() if source.exists() else b"")

    def disk(self, *arguments: Any) -> FakeDisk:
        self.disks.append(FakeDisk(*arguments))
        return self.disks[-1]

    def ask(self, root: Path, request: Query[Answer]) -> Answer:
        if isinstance(request, Set):
            self.settings.append((request.key, request.value))
        elif failure := self.failures.pop("ask", None):
            raise failure
        return request.read("" if isinstance(request, Set) else self.statistics, str(root))

    def surroundings(self, scratch: Path, hierarchy: Hierarchy | None = None) -> Surroundings:
        return Surroundings(
            scratch=scratch,
            disk="the disk",
            seed=1,
            hierarchy=hierarchy,
            ask=self.ask,
            tell=lambda text: None,
            own=self.owned.append,
        )


def fake_machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """`slow_mount` works on it from now on."""
    machine = Machine()
    for module in (slow_mount, filesystems):
        monkeypatch.setattr(module, "run_deferfs", machine.run)
    monkeypatch.setattr(slow_mount, "copy_image", machine.copy_image)
    monkeypatch.setattr(slow_mount, "SlowDisk", machine.disk)
    monkeypatch.setattr("os.path.ismount", lambda path: str(path) in machine.mounted)
    return machine


def as_disk(disk: FakeDisk) -> SlowDisk:
    """For what asks for the type."""
    return cast("SlowDisk", disk)
