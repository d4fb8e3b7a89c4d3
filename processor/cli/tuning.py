"""The interpreter and its event loop, made fit for many records."""

import asyncio
import gc
import sys
from collections.abc import Callable

try:
    import uvloop
except ImportError:  # there is no wheel for this platform
    new_event_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
else:
    new_event_loop = uvloop.new_event_loop

# For how long a thread that computes keeps another waiting that has only to take up an answer: the fetching, SQLite's.
_SWITCH_INTERVAL_S = 0.0001


def tune_interpreter() -> None:
    """Look for cyclic garbage rarely, and let threads change more often.

    Records, events and outcomes are many and alive at once, and form no cycles: with Python's defaults the collector
    takes a third of a busy worker's time to find nothing.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 50, 1_000)
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
