"""The control socket and its requests: statistics, settings, and why an inode has not been freed."""
