"""Archives: Parquet files with the rows that `expire` has deleted, in a folder or object store."""
