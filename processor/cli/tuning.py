"""The interpreter and its event loop, made fit for many records."""

import asyncio
import ctypes
import gc
import sys
from collections.abc import Callable
from contextlib import suppress

try:
    import uvloop
except ImportError:  # there is no wheel for this platform
    new_event_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
else:
    new_event_loop = uvloop.new_event_loop

# For how long a thread that computes keeps another waiting that has only to take up an answer: the fetching, SQLite's.
_SWITCH_INTERVAL_S = 0.0001

# Parameters of glibc's mallopt, by their numbers in malloc.h, and the values they get, in bytes.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 64 * 1024 * 1024
_MAPPED_FROM_BYTES = 32 * 1024 * 1024


def tune_interpreter() -> None:
    """Look for cyclic garbage rarely, let threads change more often, and keep memory that is free.

    Records, events and outcomes are many and alive at once, and form no cycles: with Python's defaults the collector
    takes a third of a busy worker's time to find nothing.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 50, 1_000)
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    _keep_free_memory()


def _keep_free_memory() -> None:
    """Of what is freed, give back to the system only what is more than some 64 MB.

    Each cycle takes and frees some megabytes. By default they go back and come again, a page fault for every 4 KB: a
    sixth of what commands of ten events cost. There is no such parameter where the C library is not glibc.
    """
    with suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM_BYTES)
