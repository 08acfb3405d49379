"""The server of a slow disk as a process: see `server`."""

import sys

from deferfs.measure.slow_disk.server import main

if __name__ == "__main__":
    main(sys.argv[1:])
