"""The failure of a run that does not need a crash."""


class TwinError(AssertionError):
    """Volume and model disagree."""
