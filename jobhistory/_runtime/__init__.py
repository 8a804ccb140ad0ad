"""What the library needs that knows nothing of history."""
