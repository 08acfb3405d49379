"""Filesystems as a pass finds them: made, mounted on a slow disk, unmounted; and what a pass on one has cost."""
