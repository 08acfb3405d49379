"""The FUSE protocol: requests and replies. The only package that imports pyfuse3."""
