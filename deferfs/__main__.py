"""`python -m deferfs`."""

from deferfs.cli.entry import main

main()
