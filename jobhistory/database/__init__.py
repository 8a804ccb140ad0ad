"""A history in a database."""
