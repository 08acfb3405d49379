"""On-disk formats only: bytes in, objects out, and back. Nothing here reads or writes a device."""
