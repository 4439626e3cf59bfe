"""Keeps the process of the development server from growing with every new version."""

import ctypes
import gc

# `M_ARENA_MAX` of the GNU C library's `mallopt`.
_ARENA_MAX = -8


def share_arenas() -> None:
    """Has all threads take memory from two arenas; before the first threads start.

    The GNU C library otherwise makes one for each of up to eight threads a core. What
    versions leave behind in so many is never whole enough to be given back.
    """
    mallopt = _function("mallopt")
    if mallopt is not None:
        mallopt(_ARENA_MAX, 2)


def give_back() -> None:
    """Returns what is free to the system, as the real server does after an unload.

    A graph is held in cycles, and the C library keeps what it once had: without
    this a process grows by some megabytes with every change of version.
    """
    gc.collect()
    trim = _function("malloc_trim")
    if trim is not None:
        trim(0)


def _function(name: str):
    """A function of the C library; None where it is not the GNU one."""
    try:
        return getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError):
        return None
