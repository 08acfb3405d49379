"""The control socket and what is asked over it: statistics, settings, and why an inode is not freed."""
