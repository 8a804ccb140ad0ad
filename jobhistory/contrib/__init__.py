"""Adapters for job frameworks: one module for each framework.

No adapter imports another. `adapter` contains what they share, `replay` enqueues jobs again.
"""
