"""`python -m jobhistory.cli` works even if the script is not on the path."""

from jobhistory.cli import main

main()
