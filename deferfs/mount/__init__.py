"""The mount: the only package that uses trio, pyfuse3, processes and the kernel's mount table. It has five parts:

    daemon  ->  fuse, control, runtime, host      the life cycle of a mount
    fuse    ->  runtime, host                     requests and replies
    control ->  runtime, host                     the control socket
    runtime ->  (the core, contract)              everything that waits
    host    ->  (the core, contract)              Linux: mount table, cgroups, processes, system calls

Read `daemon/session.py` for the life cycle of a mount, `fuse/adapter.py` for what each request does, `host/options.py`
for `-o`.
"""
