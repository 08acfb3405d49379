"""The interface to Linux: cgroups, processor time, traces, mount namespaces; and their removal after a pass."""
