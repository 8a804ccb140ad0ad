"""Statistics of executions as they are kept: counts, times and histograms by task and time."""
