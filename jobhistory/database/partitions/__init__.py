"""The history table in partitions, on PostgreSQL: ranges of ids, which stand for ranges of time."""
