"""`python -m deferfs`."""

from deferfs.cli.main import main

main()
