"""Executions as plain values: validation of the callers' arguments, and the values of a row."""
