"""How the web process asks its C library for memory: from few pools, so that what is freed is used again.

glibc gives each thread a pool (arena) of its own, up to eight per core, and what one thread freed serves no other. Here
forty threads answer requests in turn, so each pool grows to the largest answer it ever gave.
"""

from __future__ import annotations

import ctypes

ARENAS = 2
_M_ARENA_MAX = -8  # malloc.h of glibc


def share_arenas() -> bool:
    """Have all threads share ``ARENAS`` pools; call it before there are threads. False where this is not glibc."""
    try:
        return bool(ctypes.CDLL(None).mallopt(_M_ARENA_MAX, ARENAS))
    except (AttributeError, OSError, TypeError):
        return False
