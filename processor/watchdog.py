"""Ends the process when its event loop does not turn any more.

Heartbeats and fetches run on a thread of their own, so a worker whose loop is blocked would stay in the group and hold
its logs for ever. Its successor finds all that is committed, so ending it is safe at any time.
"""

import asyncio
import os
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

logger = structlog.get_logger(__name__)

EXIT_CODE = 1

_STEPS = 20
_TO_LOG_S = 2.0


@contextmanager
def watching(loop: asyncio.AbstractEventLoop, timeout_s: float) -> Iterator[None]:
    """Watch the loop of this thread while the block runs; with a time-out of 0, don't."""
    watchdog = _Watchdog(loop, threading.get_ident(), timeout_s)
    if timeout_s:
        watchdog.start()
    try:
        yield
    finally:
        watchdog.ended.set()


class _Watchdog(threading.Thread):
    """Counts its own steps, not time: where the whole process was held, the loop had no chance to turn."""

    def __init__(self, loop: asyncio.AbstractEventLoop, of_thread: int, timeout_s: float) -> None:
        super().__init__(name="watchdog", daemon=True)
        self.ended = threading.Event()
        self._loop = loop
        self._of_thread = of_thread
        self._timeout_s = timeout_s
        self._still = 0

    def run(self) -> None:
        while not self.ended.wait(self._timeout_s / _STEPS):
            self._still += 1
            if self._still > _STEPS:
                self._end_process()
            try:
                self._loop.call_soon_threadsafe(self._turned)
            except RuntimeError:  # closed
                return

    def _turned(self) -> None:
        self._still = 0

    def _end_process(self) -> None:
        # By another thread and within a bound: writing to the log may be the very thing that blocks.
        said = threading.Thread(target=self._say, daemon=True)
        said.start()
        said.join(_TO_LOG_S)
        os._exit(EXIT_CODE)

    def _say(self) -> None:
        frame = sys._current_frames().get(self._of_thread)  # noqa: SLF001 - there is no other way to another thread's
        where = traceback.extract_stack(frame)[-1] if frame is not None else None
        logger.critical(
            "the event loop stands still, ending the process: another worker takes over",
            stall_timeout_s=self._timeout_s,
            at=f"{where.filename}:{where.lineno} {where.name}" if where else "?",
        )
