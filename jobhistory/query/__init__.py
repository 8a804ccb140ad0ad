"""Questions about history, and the types of their answers."""
