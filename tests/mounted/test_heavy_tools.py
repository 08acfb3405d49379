"""Programs that take their time, and those that are made to break filesystems. All of them behind --long."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mounted.scratch import Scratch, run
from tests.mounted.sources import ROOT

pytestmark = [
    pytest.mark.mounted,
    pytest.mark.needs("bonnie++", "dbench", "fio", "fs_mark", "stress-ng"),
    pytest.mark.long,
    pytest.mark.timeout(1800),
]

STRESSORS_OUT = {"binderfs", "bind-mount", "eventfd", "ioprio", "procfs"}
"""What does not touch the filesystem that it is run on."""
STRESSOR_SECONDS = 3


@pytest.fixture(params=["on", "off"])
def mount(plain_large: Scratch, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A mount with and without the writeback cache; afterwards the image is clean."""
    yield plain_large.mount("allow_other", "dev", "suid", "exec", f"writeback_cache={request.param}")
    plain_large.unmount_and_check()


@pytest.fixture
def plain_large(tmp_path: Path) -> Iterator[Scratch]:
    scratch = Scratch(tmp_path / "scratch", size="8G")
    yield scratch
    scratch.end()


# --- PostgreSQL ---
@pytest.fixture(params=["on", "off"])
def open_mount(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A mount whose parents other users may pass through, which those of `tmp_path` are not."""
    with tempfile.TemporaryDirectory() as base:
        os.chmod(base, 0o755)
        scratch = Scratch(Path(base) / "scratch", size="4G")
        try:
            yield scratch.mount("allow_other", f"writeback_cache={request.param}")
            scratch.unmount_and_check()
        finally:
            scratch.end()


def test_postgresql(open_mount: Path) -> None:
    """initdb with checksums, pgbench, a crash and a restart; every page is sound and every account balances."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    server = Postgres(programs[-1], open_mount / "cluster")
    server.call("initdb", "-D", server.data, "--data-checksums", "-A", "trust", "-U", "postgres", "--no-locale")
    server.start()
    try:
        server.call("pgbench", *server.connection, "-i", "-s", "2", "postgres")
        server.call("pgbench", *server.connection, "-c", "4", "-j", "2", "-T", "20", "postgres")
        balance = server.balance()
        server.stop("immediate")
        server.start()
        assert server.balance() == balance
        server.call("psql", *server.connection, "-c", "VACUUM FULL", "-c", "REINDEX DATABASE postgres", "postgres")
    finally:
        server.stop("fast")
    server.call("pg_checksums", "--check", "-D", server.data)


class Postgres:
    """A server that runs as the user `postgres`, with everything it has in `home`."""

    def __init__(self, programs: Path, home: Path) -> None:
        self._programs = programs
        self._home = home
        self.data = home / "data"
        self.connection = ("-h", home, "-U", "postgres")
        home.mkdir()
        user = pwd.getpwnam("postgres")
        os.chown(home, user.pw_uid, user.pw_gid)

    def call(self, program: str, *words: str | Path) -> str:
        """Run a program of PostgreSQL."""
        user = ("setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups")
        return run(*user, self._programs / program, *words, cwd=self._home, seconds=600).stdout

    def start(self) -> None:
        options = f"-c listen_addresses= -c unix_socket_directories={self._home}"
        self.call("pg_ctl", "-D", self.data, "-w", "-l", self._home / "log", "-o", options, "start")

    def stop(self, mode: str) -> None:
        self.call("pg_ctl", "-D", self.data, "-w", "-m", mode, "stop")

    def balance(self) -> str:
        tables = ("accounts WHERE abalance", "branches WHERE bbalance", "tellers WHERE tbalance", "history WHERE delta")
        queries = [f"SELECT sum({t.split()[-1]}) FROM pgbench_{t.split()[0]};" for t in tables]
        sums = {self.call("psql", *self.connection, "-Atc", query, "postgres").strip() for query in queries}
        assert len(sums) == 1, sums
        return sums.pop()


# --- Python packages ---
def test_pip_install_into_a_venv(mount: Path) -> None:
    """A virtual environment with this project in it runs from the mount."""
    run(sys.executable, "-m", "venv", mount / "venv", seconds=600)
    python = mount / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "click", "attrs", "msgspec", seconds=600)
    run(python, "-m", "compileall", "-q", mount / "venv" / "lib", seconds=600)
    assert run(python, "-c", "import click, attrs, msgspec; print('ok')").stdout == "ok\n"
    run(python, "-m", "pip", "uninstall", "-q", "-y", "click", "attrs", "msgspec", seconds=600)


# --- load generators ---
@pytest.mark.parametrize("clients", [1, 8])
def test_dbench(mount: Path, clients: int) -> None:
    program = "dbench"
    loads = [Path("/usr/share/dbench/client.txt"), Path("/usr/share/doc/dbench/client.txt")]
    load = next((path for path in loads if path.exists()), loads[0])
    done = run(program, "-c", load, "-D", mount, "-t", "20", str(clients), seconds=600)
    assert "Throughput" in done.stdout
    # without a semaphore, which other programs may have used up, dbench goes on
    assert "failed" not in done.stdout.replace("failed to create barrier semaphore", "")


FIO_JOBS = {
    "sync": "--ioengine=sync --rw=randrw --bs=512-64k --fsync=100",
    "mmap": "--ioengine=mmap --rw=randwrite --bs=4k",
    "direct": "--ioengine=psync --direct=1 --rw=randwrite --bs=4k-128k",
    "libaio": "--ioengine=libaio --iodepth=16 --direct=1 --rw=randrw --bs=4k",
    "append": "--ioengine=sync --rw=write --bs=3333 --file_append=1",
    "threads": "--ioengine=psync --thread --numjobs=4 --rw=randwrite --bs=8k",
}


@pytest.mark.parametrize("job", FIO_JOBS)
def test_fio(mount: Path, job: str) -> None:
    """What was written is read back and verified."""
    words = ("fio", f"--name={job}", f"--directory={mount}", "--size=64M", "--verify=crc32c", "--do_verify=1",
             "--verify_fatal=1", "--verify_state_save=0", "--fallocate=none", "--randrepeat=1")  # fmt: skip
    done = run(*words, *FIO_JOBS[job].split(), seconds=900)
    assert re.search(r"err= 0", done.stdout), done.stdout


def test_fs_mark(mount: Path) -> None:
    """Without fsync, with one for each file, and with all of them at the end."""
    for mode in ("0", "1", "5"):
        words = ("-d", f"files{mode}", "-n", "500", "-s", "5000", "-t", "4", "-S", mode, "-D", "9")
        done = run("fs_mark", *words, cwd=mount, seconds=900)  # it takes no long paths
        assert re.search(r"^\s+\d+\s+2000\s+5000\s", done.stdout, re.MULTILINE), done.stdout


def test_bonnie(mount: Path) -> None:
    directory = mount / "bonnie"
    directory.mkdir()
    run("bonnie++", "-d", directory, "-u", "root", "-s", "256M", "-r", "128M", "-n", "4:20000:10:4", "-x", "1",
        "-q", seconds=1200)  # fmt: skip


def stressors() -> list[str]:
    """Those of stress-ng's class `filesystem`."""
    listed = subprocess.run(["stress-ng", "--class", "filesystem?"], capture_output=True, text=True, check=False).stdout
    return [name for name in listed.partition(":")[2].split() if name not in STRESSORS_OUT]


def test_stress_ng(mount: Path) -> None:
    """Each stressor of the class for some seconds, verifying; the mount must live and the image be clean."""
    program = "stress-ng"
    directory = mount / "stress"
    directory.mkdir()
    failed = []
    for name in stressors():
        words = (program, f"--{name}", "2", "--timeout", str(STRESSOR_SECONDS), "--verify", "--temp-path", directory)
        done = run(*words, cwd=ROOT, code=None, seconds=300)
        if done.returncode not in (0, 3, 4):  # 3: no resources, 4: not implemented on this system
            failed.append(f"{name}: {done.returncode} {(done.stdout + done.stderr)[-600:]}")
    assert not failed, "\n".join(failed)
