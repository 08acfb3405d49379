"""What the daemon says and takes: its statistics, requests and replies as types, and the table of its settings.

The daemon encodes and every reader decodes: command line, benchmarks, tests. Help texts, metrics and the tables of the
documentation are generated from here. This package does no IO, never waits, and does not depend on a running mount.
"""
