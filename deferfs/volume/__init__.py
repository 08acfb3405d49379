"""POSIX semantics on the store, one module per family. An operation is a function of a plan.

The names exported here are for other programs: `Driver` runs operations on a device without a kernel; the operations
are in the modules `attributes`, `files`, `namespace` and `xattrs`. See `docs/volume-library.md`.
"""

from deferfs.volume import attributes, files, namespace, xattrs
from deferfs.volume.attributes import Statfs
from deferfs.volume.driver import Driver
from deferfs.volume.files import Piece, ReadPlan
from deferfs.volume.new_inode import Credentials, NewInode
from deferfs.volume.volume import Volume

__all__ = [
    "Credentials",
    "Driver",
    "NewInode",
    "Piece",
    "ReadPlan",
    "Statfs",
    "Volume",
    "attributes",
    "files",
    "namespace",
    "xattrs",
]
