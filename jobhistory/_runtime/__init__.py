"""General parts that know nothing of history."""
