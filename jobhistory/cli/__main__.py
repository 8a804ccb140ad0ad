"""`python -m jobhistory.cli`, for where the script is not on the path."""

from jobhistory.cli import main

main()
