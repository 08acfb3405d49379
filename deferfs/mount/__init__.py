"""The mount: the only room that knows trio, pyfuse3, processes and the kernel's mount table. It is five rooms:

    daemon  ->  fuse, control, runtime, host      the life of a mount
    fuse    ->  runtime, host                     requests and replies
    control ->  runtime, host                     the control socket
    runtime ->  (the core)                        everything that waits
    host    ->  (the core)                        what is asked of Linux

Read `daemon/session.py` for the life of a mount, `fuse/adapter.py` for what a request becomes, `host/options.py` for
`-o`.
"""
