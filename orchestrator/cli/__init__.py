"""The command line: one file per command; each parses, calls and prints a table or `--json`."""

from orchestrator.cli.app import main

__all__ = ["main"]
