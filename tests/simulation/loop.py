"""An event loop for simulations: virtual time, several processes in one, and the next step drawn by a seeded generator.

A callback belongs to the process in whose context it was scheduled; tasks hand that on to what they start. A process
can be killed, which drops all its callbacks, or paused, which keeps them. Time goes on only when nobody has anything to
do, so sleeping costs nothing.
"""

import asyncio
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context, ContextVar, copy_context
from heapq import heappop, heappush
from random import Random
from typing import Any, TypeVar, TypeVarTuple, cast

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")
_process: ContextVar["Process"] = ContextVar("process")


class Deadlock(Exception):
    """Nobody has anything to do, now or later."""


class Process:
    """What would be a process of its own: its memory is its own, and it can be stopped at any step."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False
        self.paused = False
        self.ready: deque[asyncio.Handle] = deque()
        self._steps_left = 0
        self._then: Callable[[], None] | None = None

    def after_steps(self, steps: int, then: Callable[[], None]) -> None:
        """Call `then` once the process has made so many more steps."""
        self._steps_left, self._then = steps, then

    def stepped(self) -> None:
        """Count a step."""
        if self._then is None:
            return
        self._steps_left -= 1
        if self._steps_left <= 0:
            then, self._then = self._then, None
            then()


class _Task(asyncio.Task[Any]):
    """A task whose place in a set is the same in every run."""

    def __init__(self, number: int, coro: Coroutine[Any, Any, Any], **options: Any) -> None:
        self._number = number
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self._number


class SimulatedLoop(asyncio.BaseEventLoop):
    """See the module's docstring.

    `shuffled`: also within a process, any callback that is ready may come next; else they come in asyncio's order.
    """

    def __init__(self, random: Random, *, shuffled: bool) -> None:
        super().__init__()
        self.world = Process("world")
        self.world_context = self._context_of(self.world)
        self._draw = random.random
        self._shuffled = shuffled
        self._now = 0.0
        self._count = 0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._runnable: list[Process] = []
        self._tasks: list[_Task] = []
        self._faults: list[BaseException] = []
        self.set_exception_handler(self._on_fault)

    # --- processes

    @property
    def current(self) -> Process:
        """Whose step this is."""
        return _process.get(self.world)

    def spawn(self, process: Process, coro: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Start a task that belongs to a process."""
        return self.create_task(coro, context=self._context_of(process))

    @staticmethod
    def _context_of(process: Process) -> Context:
        context = copy_context()
        context.run(_process.set, process)
        return context

    def kill(self, process: Process) -> None:
        """None of its callbacks is ever called again."""
        process.dead = True
        process.ready.clear()
        self._leave(process)

    def pause(self, process: Process) -> None:
        """Its callbacks wait until it is resumed; time goes on."""
        process.paused = True
        self._leave(process)

    def resume(self, process: Process) -> None:
        """Undo `pause`."""
        if process.paused:
            process.paused = False
            if process.ready:
                self._runnable.append(process)

    def _leave(self, process: Process) -> None:
        if process in self._runnable:
            self._runnable.remove(process)

    # --- running

    def run_until_complete(self, future: Any) -> Any:
        """Run a coroutine in the world's process, and return what it returns."""
        before = events._get_running_loop()
        events._set_running_loop(self)
        try:
            main = self.spawn(self.world, future)
            while not main.done():
                if self._runnable:
                    self._step()
                else:
                    self._advance()
                if self._faults:
                    raise self._faults[0]
            return main.result()
        finally:
            self._dispose()
            events._set_running_loop(before)

    def _step(self) -> None:
        runnable = self._runnable
        index = int(self._draw() * len(runnable)) if len(runnable) > 1 else 0
        process = runnable[index]
        ready = process.ready
        if self._shuffled and len(ready) > 1:
            ready.rotate(-int(self._draw() * len(ready)))
        handle = ready.popleft()
        if not ready:
            runnable[index] = runnable[-1]
            runnable.pop()
        if not handle.cancelled():
            handle._run()
            process.stepped()

    def _advance(self) -> None:
        """Let time go on to the next timer."""
        while self._timers and self._timers[0][2].cancelled():
            heappop(self._timers)
        if not self._timers:
            raise Deadlock
        self._now = max(self._now, self._timers[0][0])
        while self._timers and self._timers[0][0] <= self._now:
            self._put(heappop(self._timers)[2])

    def _put(self, handle: asyncio.Handle) -> None:
        process: Process = cast(Any, handle)._context[_process]
        if process.dead or self._closed:
            return
        if not process.ready and not process.paused:
            self._runnable.append(process)
        process.ready.append(handle)

    def _on_fault(self, _: object, context: dict[str, Any]) -> None:
        """What a callback raised ends the run; what a task raised and nobody asked for does not."""
        if "handle" in context and "exception" in context:
            self._faults.append(context["exception"])

    def _dispose(self) -> None:
        """End what is left of all processes, unseen by anyone."""
        self._closed = True
        for task in self._tasks:
            if not task.done():
                with suppress(BaseException):
                    task.get_coro().close()
        self._tasks.clear()
        self._timers.clear()

    # --- what asyncio asks of a loop

    def time(self) -> float:
        return self._now

    def call_soon(
        self, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._put(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._count += 1
        heappush(self._timers, (when, self._count, handle))
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self, coro: Any, *, name: object = None, context: Context | None = None, **options: Any
    ) -> asyncio.Task[Any]:
        self._count += 1
        task = _Task(self._count, coro, loop=self, name=str(name or f"task-{self._count}"), context=context)
        self._tasks.append(task)
        return task
