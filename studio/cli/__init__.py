"""The ``studio`` command. Entry: ``main``."""

from studio.cli.start import main

__all__ = ["main"]
