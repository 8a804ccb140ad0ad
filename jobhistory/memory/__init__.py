"""History without a database."""
