"""Crashes of other filesystems: a disk that records what is written to it, as a FUSE file behind a loop device.

`disk_server` is the FUSE filesystem with one file, in its own process. `recorder` runs it, attaches a loop device, and
reads the log. `workload` works on the mounted filesystem and notes what fsync has promised. `judge` mounts the states
that a crash may leave, and compares. `filesystems` has the commands to make and check ext4, XFS and btrfs.
"""
