"""A history in memory, without a database."""
