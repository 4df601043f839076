"""The command line: `fastscalar train`, `evaluate`, `predict`, `data`, `bench`, `play`, `info`."""

from fastscalar.cli.commands import main

__all__ = ["main"]
