"""What is asked of Linux: the mount table, cgroups, processes, system calls; and the options of a mount."""
