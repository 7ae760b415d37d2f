"""The command line: `otun server`, `otun client`, `otun http`, `otun demo`; `python -m otun.cli` is the same."""

from .app import main

__all__ = ["main"]
