"""POSIX semantics on the store, one module per family. Operations are functions of a plan."""
