"""Reclaim that never blocks: references, states, the in-core inode cache, evict policies, inodegc.

Nothing here waits. The sources of eviction (FORGET, RELEASE, direct reclaim, unmount) call the cache; a policy
decides who waits for the inactivation that follows; a driver runs it.
"""
