"""A process that is measured: when it is ready, what it uses, and its end."""

import asyncio
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

import psutil

from benchmarks.bare import READY


class Program(NamedTuple):
    """What is run, and what it says on standard error when it is about to read."""

    command: Sequence[str]
    ready_line: str


WORKER = Program((sys.executable, "-m", "processor.cli", "worker"), "owning logs")
UNMETERED = Program((sys.executable, "-m", "benchmarks.unmetered", "worker"), "owning logs")
BARE_ECHO = Program((sys.executable, "-m", "benchmarks.bare", "echo"), READY)


def bare_path(commands: int) -> Program:
    """The yardstick of a drain of so many commands."""
    return Program((sys.executable, "-m", "benchmarks.bare", "path", str(commands)), READY)


_START_S, _STOP_S = 60.0, 20.0
_SAMPLE_S = 0.05
_MIB = 2**20


class Measured:
    """A running process, read from outside."""

    def __init__(self, process: asyncio.subprocess.Process, ready_line: str) -> None:
        self.peak_mib = 0.0
        self.pid = process.pid
        self._process = process
        self._usage = psutil.Process(process.pid)
        self._ready_line = ready_line
        self._ready: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._last_lines: deque[str] = deque(maxlen=20)
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._sample())]

    async def ready(self) -> float:
        """When it said that it is about to read, by `time.perf_counter`."""
        async with asyncio.timeout(_START_S):
            return await self._ready

    def cpu_s(self) -> float:
        """What it has used of the processors so far."""
        times = self._usage.cpu_times()
        used_s: float = times.user + times.system
        return used_s

    def suspend(self) -> None:
        """Let it stand still, with its connections open."""
        self._usage.suspend()

    def resume(self) -> None:
        """Let it go on."""
        self._usage.resume()

    def kill(self) -> None:
        """End it as a crash would."""
        self._usage.kill()

    def check(self) -> None:
        """Raise `RuntimeError` if it has failed."""
        if self._process.returncode:
            raise RuntimeError(f"ended with {self._process.returncode}:\n" + "\n".join(self._last_lines))

    async def _read(self) -> None:
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            text = line.decode(errors="replace").rstrip()
            self._last_lines.append(text)
            if self._ready_line in text and not self._ready.done():
                self._ready.set_result(time.perf_counter())
        await self._process.wait()
        if not self._ready.done():
            self._ready.set_exception(RuntimeError("ended before it was ready:\n" + "\n".join(self._last_lines)))

    async def _sample(self) -> None:
        with suppress(psutil.Error):
            while True:
                self.peak_mib = max(self.peak_mib, self._usage.memory_info().rss / _MIB)
                await asyncio.sleep(_SAMPLE_S)

    async def stop(self) -> None:
        """End it; by force where it does not end."""
        if self._process.returncode is None:
            self._usage.resume()
            self._process.terminate()
            try:
                async with asyncio.timeout(_STOP_S):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def running(
    program: Program, environment: Mapping[str, str], *, process_group: int = -1
) -> AsyncIterator[Measured]:
    """Run a program meanwhile; with `process_group` 0, a terminal's Ctrl-C does not reach it."""
    # uvloop, on which some measure, does not know the option.
    group: dict[str, Any] = {} if process_group < 0 else {"process_group": process_group}
    process = await asyncio.create_subprocess_exec(
        *program.command,
        env=environment,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        limit=2**20,
        **group,
    )
    measured = Measured(process, program.ready_line)
    try:
        yield measured
    finally:
        await measured.stop()
