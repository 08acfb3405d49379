"""The interface to Linux: cgroups, processor time, traces, commands; and their removal after a pass."""
