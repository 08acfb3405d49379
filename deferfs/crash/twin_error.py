"""What a run fails with that needs no crash."""


class TwinError(AssertionError):
    """Volume and model disagree."""
