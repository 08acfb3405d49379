"""The scenarios of `deferfs bench`: one module each, found by its name."""
