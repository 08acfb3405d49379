"""The output of a run: sentences, a table, a page."""
