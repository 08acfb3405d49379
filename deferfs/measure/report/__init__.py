"""What a run says: sentences, a table, a page."""
