"""History in a database."""
