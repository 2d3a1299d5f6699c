"""The face of the product: the page, the REST routes and the `studio` command, over ``training`` and ``feedback``."""

__version__ = "0.1.0"
