"""The command line: `chexalign …` and `python -m chexalign`."""

from chexalign.cli.main import app, main

__all__ = ["app", "main"]
