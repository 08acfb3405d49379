"""Everything that waits: operations, commits, eviction, inodegc. Uses trio, but neither FUSE nor the system."""
