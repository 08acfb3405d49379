"""The mount: the only room that knows trio, pyfuse3, processes and the kernel's mount table.

Read `session` for the life of a mount, `adapter` for what a FUSE request becomes, `options` for `-o`.
"""
