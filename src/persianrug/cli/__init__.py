"""The command line: one file a group of commands, which parse, call and print."""

from persianrug.cli.app import main

__all__ = ["main"]
