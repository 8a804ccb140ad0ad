"""Following a history: what starts and ends in it, as it happens."""
