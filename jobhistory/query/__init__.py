"""Criteria, pages and reports, without SQL."""
