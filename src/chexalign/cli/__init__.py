"""The command line: `chexalign …` and `python -m chexalign`."""

from chexalign.cli.commands import app, main

__all__ = ["app", "main"]
