"""Scenarios that run the inside of the daemon, or the crash explorer, in this process: `measure` may import neither."""
