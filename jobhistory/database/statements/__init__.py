"""The SQL, built without touching a database."""
