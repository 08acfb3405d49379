"""Block cache, transactions, journal, recovery, free space and the structures kept in blocks. Sans-IO."""
