"""The protocol: requests and replies, and the only place that knows pyfuse3."""
