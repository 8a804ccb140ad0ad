"""Schedules that are found elsewhere, such as in a crontab, as expectations."""
