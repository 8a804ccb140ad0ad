"""SQL statements, which are built without a database connection."""
