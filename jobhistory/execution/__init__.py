"""One execution as plain values: what callers give, checked, and the values of its row."""
