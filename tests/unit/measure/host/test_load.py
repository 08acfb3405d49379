"""Accounts of processes, in a /proc that the test makes."""

import os
from pathlib import Path

import pytest

from deferfs.measure.host.accounts import account_of, descendants
from deferfs.measure.host.load import ForeignLoad, OwnProcesses

TICK = os.sysconf("SC_CLK_TCK")
OURS, CHILD, DAEMON, OTHER, KERNEL = 100, 101, 200, 300, 2


class Proc:
    """Processor seconds of each process; nothing else of it matters."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for pid in (OURS, CHILD, DAEMON, OTHER):
            self.set(pid, 0)
        self.set(KERNEL, 0, flags=0x0020_8040)
        children = root / str(OURS) / "task" / str(OURS) / "children"
        children.parent.mkdir(parents=True)
        children.write_text(f"{CHILD} ")
        self.use(0)

    def set(self, pid: int, seconds: float, children: float = 0, *, flags: int = 0, started: int = 5) -> None:
        directory = self.root / str(pid)
        directory.mkdir(exist_ok=True)
        times = [int(seconds * TICK), 0, int(children * TICK), 0]
        fields = ["S", 1, 1, 1, 0, -1, flags, 0, 0, 0, 0, *times, 20, 0, 1, 0, started, 0]
        (directory / "stat").write_text(f"{pid} (a) b) " + " ".join(map(str, fields)))

    def use(self, seconds: float, steal: float = 0) -> None:
        (self.root / "stat").write_text(f"cpu  {int(seconds * TICK)} 0 0 9 9 0 0 {int(steal * TICK)} 0 0\n")

    def end(self, pid: int) -> None:
        (self.root / str(pid) / "stat").unlink()
        (self.root / str(pid)).rename(self.root / f"gone-{pid}")


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    return Proc(tmp_path)


@pytest.fixture
def own(proc: Proc) -> OwnProcesses:
    return OwnProcesses(None, proc.root, OURS)


def fraction(load: ForeignLoad) -> float:
    """In seconds of one processor."""
    return load.fraction(1.0) * (os.cpu_count() or 1)


def test_time_of_another_program_is_foreign(proc: Proc, own: OwnProcesses) -> None:
    load = ForeignLoad(own, proc.root)
    proc.set(OTHER, 0.5)
    proc.use(0.5)
    assert fraction(load) == pytest.approx(0.5)


def test_our_own_processes_their_children_and_the_kernels_threads_are_not(proc: Proc, own: OwnProcesses) -> None:
    load = ForeignLoad(own, proc.root)
    proc.set(OURS, 0.1, children=0.1)
    proc.set(CHILD, 0.2)
    proc.set(KERNEL, 0.3, flags=0x0020_8040)
    proc.use(0.7)
    assert fraction(load) == 0


def test_a_reported_daemon_is_ours_even_when_it_has_ended(proc: Proc, own: OwnProcesses) -> None:
    load = ForeignLoad(own, proc.root)
    own.note(DAEMON)
    proc.set(DAEMON, 0.4)
    own.seconds()
    proc.end(DAEMON)
    proc.use(0.4)
    assert fraction(load) == pytest.approx(0)


def test_a_daemon_that_is_not_reported_is_foreign(proc: Proc, own: OwnProcesses) -> None:
    load = ForeignLoad(own, proc.root)
    proc.set(DAEMON, 0.4)
    proc.use(0.4)
    assert fraction(load) == pytest.approx(0.4)


def test_a_later_process_of_the_same_number_is_not_taken_for_the_daemon(proc: Proc, own: OwnProcesses) -> None:
    own.note(DAEMON)
    load = ForeignLoad(own, proc.root)
    proc.set(DAEMON, 0.4, started=77)
    proc.use(0.4)
    assert fraction(load) == pytest.approx(0.4)


def test_a_reported_child_counts_once(proc: Proc, own: OwnProcesses) -> None:
    own.note(CHILD)
    proc.set(CHILD, 0.2)
    assert own.seconds() == pytest.approx(0.2)
    (proc.root / str(OURS) / "task" / str(OURS) / "children").write_text("")
    proc.end(CHILD)
    proc.set(OURS, 0, children=0.2)
    assert own.seconds() == pytest.approx(0.2)


def test_time_stolen_by_a_hypervisor_is_foreign(proc: Proc, own: OwnProcesses) -> None:
    load = ForeignLoad(own, proc.root)
    proc.use(0, steal=0.3)
    assert fraction(load) == pytest.approx(0.3)


def test_our_processes_have_accounts_on_this_machine() -> None:
    account = account_of(os.getpid(), Path("/proc"))
    assert account is not None and account.own > 0 and not account.kernel_thread
    child = os.fork()
    if not child:
        os.read(os.pipe()[0], 1)
        os._exit(0)
    try:
        assert child in set(descendants(os.getpid(), Path("/proc")))
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert account_of(child, Path("/proc")) is None
