"""Everything that waits: operations, commits, eviction, inodegc. It knows trio, but neither FUSE nor the system."""
