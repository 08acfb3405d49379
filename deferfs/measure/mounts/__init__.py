"""Filesystems for a pass: made, mounted on a slow disk, unmounted; and the costs of a pass on one."""
