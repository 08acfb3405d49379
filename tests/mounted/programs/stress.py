"""Random operations on a few names, so that processes doing the same at the same time get in each other's way.

    stress.py DIRECTORY OPERATIONS SEED

Errors that follow from that are part of it, and so is a full disk: the number of ENOSPC is printed. Any other error
ends the program.
"""

import errno
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path

NAMES = 40
FOLDERS = 4
EXPECTED = {
    errno.ENOSPC,
    errno.ENOENT,
    errno.EEXIST,
    errno.ENOTEMPTY,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EINVAL,
    errno.EPERM,
    errno.ENODATA,
    errno.ELOOP,
    errno.ENAMETOOLONG,  # a symbolic link to nowhere
    errno.ESTALE,
}
LENGTHS = [0, 50, 400, 4096, 30_000, 300_000]


class Stress:
    """Operations on random paths below `root`; some files are kept open over many of them."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root = root
        self.dice = random.Random(seed)
        self.open: list[int] = []
        self.full = 0

    def path(self) -> Path:
        parts = [f"folder{self.dice.randrange(FOLDERS)}" for _ in range(self.dice.randrange(3))]
        return self.root.joinpath(*parts, f"name{self.dice.randrange(NAMES)}")

    def write(self) -> None:
        """Without O_TRUNC: Linux tells a FUSE filesystem of it at OPEN, and sets its own size to 0 later without
        holding a lock in between. If another process changes the size just then, the two disagree for good."""
        descriptor = os.open(self.path(), os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, self.dice.randbytes(self.dice.choice(LENGTHS)))
        finally:
            os.close(descriptor)

    def write_inside(self) -> None:
        descriptor = os.open(self.path(), os.O_RDWR | os.O_CREAT | self.dice.choice([0, os.O_APPEND]), 0o644)
        try:
            data = self.dice.randbytes(self.dice.choice(LENGTHS))
            os.pwrite(descriptor, data, self.dice.choice([0, 1000, 100_000, 5_000_000]))
        finally:
            self.keep_or_close(descriptor)

    def keep_or_close(self, descriptor: int) -> None:
        if self.dice.randrange(3):
            os.close(descriptor)
            return
        self.open.append(descriptor)
        if len(self.open) > 20:
            os.close(self.open.pop(self.dice.randrange(20)))

    def write_to_open(self) -> None:
        if self.open:
            descriptor = self.dice.choice(self.open)
            os.pwrite(descriptor, self.dice.randbytes(5000), self.dice.randrange(400_000))
            if not self.dice.randrange(5):
                os.fsync(descriptor)

    def read(self) -> None:
        self.path().read_bytes()

    def truncate(self) -> None:
        os.truncate(self.path(), self.dice.choice([*LENGTHS, 2_000_000]))

    def unlink(self) -> None:
        self.path().unlink()

    def rename(self) -> None:
        self.path().rename(self.path())

    def link(self) -> None:
        os.link(self.path(), self.path())

    def symlink(self) -> None:
        self.path().symlink_to("t" * self.dice.choice([10, 300, 2000]))

    def mkdir(self) -> None:
        self.path().with_name(f"folder{self.dice.randrange(FOLDERS)}").mkdir()

    def rmdir(self) -> None:
        self.path().with_name(f"folder{self.dice.randrange(FOLDERS)}").rmdir()

    def xattr(self) -> None:
        name = f"user.{self.dice.randrange(3)}"
        if self.dice.randrange(4):
            os.setxattr(self.path(), name, self.dice.randbytes(self.dice.choice([0, 20, 300, 9000])))
        else:
            os.removexattr(self.path(), name)

    def attributes(self) -> None:
        path = self.path()
        path.chmod(self.dice.choice([0o600, 0o644, 0o755]))
        os.utime(path, ns=(self.dice.randrange(1 << 60), self.dice.randrange(1 << 60)))

    def list(self) -> None:
        for entry in os.scandir(self.path().parent):
            entry.stat(follow_symlinks=False)

    def run(self, operations: int) -> None:
        """Weighted towards what makes and removes names."""
        choices: list[Callable[[], None]] = [
            *(2 * [self.write, self.write_inside, self.write_to_open, self.unlink, self.rename]),
            *(self.read, self.truncate, self.link, self.symlink, self.mkdir, self.rmdir),
            *(self.xattr, self.attributes, self.list, self.unlink),
        ]
        for _ in range(operations):
            try:
                self.dice.choice(choices)()
            except OSError as error:
                self.full += error.errno == errno.ENOSPC
                if error.errno not in EXPECTED:
                    raise


if __name__ == "__main__":
    stress = Stress(Path(sys.argv[1]), int(sys.argv[3]))
    stress.run(int(sys.argv[2]))
    print(stress.full)
