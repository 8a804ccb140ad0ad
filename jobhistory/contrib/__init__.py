"""Adapters for job frameworks: one module for each framework.

No adapter imports another. `adapter`, `jobs` and `leftovers` contain what they share. `replay`
enqueues jobs again, by means of `replayer`, `refusals` and `enqueuing`.
"""
