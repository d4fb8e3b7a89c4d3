"""An event loop beside the caller's: what runs there goes on while the caller's computes."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

_Result = TypeVar("_Result")

_STOP_S = 5.0


class Aside:
    """An event loop in a thread of its own, from the first `start` to `stop`."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self, work: Coroutine[Any, Any, _Result]) -> Future[_Result]:
        """Begin it there. To cancel the future cancels the work, a moment later."""
        if self._loop is None:
            # Of the same kind as the caller's.
            self._loop = type(asyncio.get_running_loop())()
            self._thread = threading.Thread(target=self._loop.run_forever, name="aside", daemon=True)
            self._thread.start()
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def call(self, callback: Callable[[], object]) -> None:
        """Have it called there, unless it has stopped."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(callback)

    async def stop(self, last: Callable[[], Awaitable[None]]) -> None:
        """Cancel what still runs there, do what is `last`, and end the thread; nothing where there was no `start`."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        self._loop = self._thread = None
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_end(last), loop))
        loop.call_soon_threadsafe(loop.stop)
        await asyncio.to_thread(thread.join)
        loop.close()


async def _end(last: Callable[[], Awaitable[None]]) -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=_STOP_S)
    await last()
