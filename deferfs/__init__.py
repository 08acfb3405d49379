"""deferfs: a journaled filesystem in userspace that evicts inodes inline or deferred."""

__version__ = "0.1.0"
