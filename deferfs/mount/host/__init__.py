"""The interface to Linux: mount table, cgroups, processes, system calls; and the options of a mount."""
