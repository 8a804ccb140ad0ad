"""Alerts: news of incidents, sent once to people and programs."""
