"""`python -m persianrug` is the command `persianrug`."""

from persianrug.cli import main

main()
