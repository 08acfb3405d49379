"""Daemons that the tests of commands start, and their end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.cli.conftest import environment_of_the_program


def wait_for_end(process: int) -> None:
    import select

    poller = select.poll()
    poller.register(process, select.POLLIN)
    assert poller.poll(30_000), "the daemon did not end"
    os.close(process)


class Foreground:
    """A daemon in the foreground."""

    def __init__(self, image: Path, directory: Path) -> None:
        code = "from deferfs.cli.main import main; main()"
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", code, "mount", "-f", str(image), str(directory)],
            stderr=subprocess.PIPE,
            text=True,
            env=environment_of_the_program(),
        )
        self.log: list[str] = []
        self.wait_for("INFO: mounted")

    def wait_for(self, text: str) -> None:
        """Read the log up to a line that contains `text`."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            if text in line:
                return
        raise AssertionError(f"{text!r} is not in the log: {self.log}")

    def end(self) -> int:
        """The exit code, once it has ended by itself."""
        _, rest = self.process.communicate(timeout=60)
        self.log += rest.splitlines()
        return self.process.returncode
