"""`jobhistory run`: a command, and its record in history.

The command starts before anything slow is imported, so no module here imports SQLAlchemy, Typer or
asyncio, directly or indirectly. The functions that record do, in a thread, while the command runs.
"""
