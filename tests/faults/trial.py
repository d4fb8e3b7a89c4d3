"""One run: topics and a store of its own, worker processes, a load, and in the end the checker's verdict."""

import asyncio
import os
import signal
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any, Self

import asyncpg
import psutil
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from processor.failpoints import VARIABLE
from processor.kafka.topics import create_topics
from processor.partition import partition_of
from processor.settings import Settings
from processor.stores.migrate import upgrade
from tests.faults.checker import check
from tests.faults.evidence import collect, lag_is_zero, reading
from tests.faults.history import Load, Recorder

PARTITIONS = 4
MANY = int(os.environ.get("TIDEMARK_TEST_FAULT_REPEATS", "1"))
"""How often a worker is killed at each point, and held at each past its session."""

REPEATS = max(1, MANY // 4)
"""How often any other fault is tried."""

FEWER = max(1, MANY // 10)
"""How often those are that take longer, or that other tests repeat as well."""

SESSION_MS = 6_000
HEAL_S = 60.0
"""Bound on the time from the end of a fault to a lag of zero."""

OF_ONE_LOG = ("one_winner", "one_verdict", "accepted_is_stored", "linearisable")
"""The rules that tell commands by their offsets, which a log that was begun anew counts again."""

TERMINATE = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE application_name = 'tidemark' AND datname = current_database()
"""
"""Has PostgreSQL end the workers' connections."""

_POLL_S = 0.02
_WAIT_S = 60.0
_CLEAN_UP_S = 10.0


async def until(holds: Callable[[], bool], within_s: float = _WAIT_S) -> None:
    """Wait for what has no event of its own. Raises `TimeoutError`."""
    async with asyncio.timeout(within_s):
        while not holds():
            await asyncio.sleep(_POLL_S)


async def execute(postgres_url: str, statement: str) -> list[asyncpg.Record]:
    """Run a statement on a PostgreSQL server, over a connection of its own; returns its rows."""
    connection = await asyncpg.connect(postgres_url)
    try:
        return list(await connection.fetch(statement))
    finally:
        await connection.close()


class WorkerProcess:
    """`tidemark worker` as a process, and its log."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def said(self) -> str:
        """Its log so far."""
        return self._log.read_text(errors="replace")

    @property
    def is_stopped(self) -> bool:
        """Whether SIGSTOP holds it."""
        return bool(psutil.Process(self._process.pid).status() == psutil.STATUS_STOPPED)

    @property
    def has_ended(self) -> bool:
        return self._process.returncode is not None

    async def says(self, text: str, times: int = 1, within_s: float = _WAIT_S) -> None:
        """Wait until its log has a text."""
        await until(lambda: self.has_ended or self.said.count(text) >= times, within_s)
        assert self.said.count(text) >= times, f"ended without {text!r}:\n{self.said[-3000:]}"

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it still runs."""
        if not self.has_ended:
            self._process.send_signal(number)

    async def ends(self, within_s: float = _WAIT_S) -> int:
        """Wait for its end; returns its exit code, or minus the signal."""
        async with asyncio.timeout(within_s):
            return await self._process.wait()

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it, one way or the other; a process that is held is let go first."""
        self.send(number)
        self.send(signal.SIGCONT)
        try:
            return await self.ends()
        except TimeoutError:
            self.send(signal.SIGKILL)
            await self.ends()
            raise AssertionError(f"it does not end:\n{self.said[-3000:]}") from None


class Trial:
    """See the module's docstring. `async with` ends the processes that it started."""

    def __init__(
        self, brokers: str, prefix: str, store: str, folder: Path, partitions: int = PARTITIONS, **settings: Any
    ) -> None:
        self.folder = folder
        self.history = folder / "history.jsonl"
        self.settings = Settings(
            brokers=brokers.split(","),
            topic_prefix=prefix,
            group=f"{prefix}group",
            store=store,
            partitions=partitions,
            session_timeout_ms=SESSION_MS,
            http="127.0.0.1:0",
            **settings,
        )
        self.workers: list[WorkerProcess] = []
        self._recorder = Recorder(self.history)
        self.tried = 1
        self._load: Load | None = None
        self._tasks: list[asyncio.Task[Any]] = []

    async def __aenter__(self) -> Self:
        await create_topics(self.settings)
        if self.settings.store.startswith("postgresql:"):
            await asyncio.to_thread(upgrade, self.settings.store, partitions=self.settings.partitions)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._recorder.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for worker in self.workers:
            if not worker.has_ended:
                await worker.end(signal.SIGKILL)
        # A broker that other tests use as well has only so much room.
        with suppress(KafkaError, TimeoutError):
            async with asyncio.timeout(_CLEAN_UP_S):
                await self._delete_topics()

    async def _delete_topics(self) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.settings.brokers)
        try:
            await admin.start()
            topics = [topic for topic in await admin.list_topics() if topic.startswith(self.settings.topic_prefix)]
            await admin.delete_topics(topics)
        finally:
            await admin.close()

    def times(self, count: int) -> Iterator[int]:
        """So many repetitions of the fault, which are counted for the report."""
        self.tried = count
        yield from range(count)

    # --- workers

    async def worker(
        self,
        failpoints: str = "",
        *arguments: str,
        ready: bool = True,
        program: str = "processor.cli",
        code: Path | None = None,
        **environment: str,
    ) -> WorkerProcess:
        """Start a worker, and wait until it owns logs, unless a fault is to strike before (`ready=False`).

        `code`: the folder of another version's package.
        """
        log = self.folder / f"worker-{len(self.workers)}.log"
        with log.open("wb") as written:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", program, "worker", *arguments,
                env=self._environment(failpoints) | environment, stderr=written, cwd=code,
            )  # fmt: skip
        worker = WorkerProcess(process, log)
        self.workers.append(worker)
        if ready:
            await worker.says("owning logs")
        return worker

    def _environment(self, failpoints: str) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TIDEMARK_")}
        given = {name: getattr(self.settings, name) for name in self.settings.model_fields_set}
        named = {
            f"TIDEMARK_{name.upper()}": ",".join(value) if isinstance(value, list) else str(value)
            for name, value in given.items()
        }
        return inherited | named | ({VARIABLE: failpoints} if failpoints else {})

    async def take_over(self) -> dict[int, int]:
        """Raise every log's epoch in the store, as an owner does; returns the epochs, by partition."""
        statement = "UPDATE checkpoints SET epoch = epoch + 1 RETURNING partition, epoch"
        if self.settings.store.startswith("postgresql:"):
            return dict(await execute(self.settings.store, statement))
        with closing(sqlite3.connect(self.settings.store.removeprefix("sqlite:///"), timeout=30)) as store, store:
            return dict(store.execute(statement).fetchall())

    async def is_claimed_from(self, epochs: dict[int, int]) -> None:
        """Wait until every log has a later owner than the one of these epochs."""
        async with reading(self.settings) as store, asyncio.timeout(_WAIT_S):
            while any(now.epoch <= epochs[log.partition] for log, now in (await store.checkpoints()).items()):
                await asyncio.sleep(_POLL_S)

    async def terminate(self, which: str) -> None:
        """Have PostgreSQL end workers' connections of which a condition holds; waits until there is one."""
        url = self.settings.store
        connection = await asyncpg.connect(url)
        try:
            async with asyncio.timeout(_WAIT_S):
                while not await connection.fetch(f"{TERMINATE} AND {which}"):
                    await asyncio.sleep(_POLL_S)
        finally:
            await connection.close()

    def start(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Let something run beside the test, until the trial ends."""
        task = asyncio.create_task(work)
        self._tasks.append(task)
        return task

    def partition_of(self, stream: str) -> int:
        """Where a stream is."""
        return partition_of(stream.encode(), self.settings.partitions)

    async def command(self, *arguments: str) -> tuple[int, str]:
        """A command of the command line: its exit code, and all that it printed."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "processor.cli", *arguments,
            env=self._environment(""), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        printed, _ = await process.communicate()
        return process.returncode or 0, printed.decode(errors="replace")

    # --- the load

    @asynccontextmanager
    async def load(self, **options: Any) -> AsyncIterator[None]:
        """Clients at work while the block runs. At its end each finishes its command, and nothing is left open."""
        load = self._load = Load(self.settings, self._recorder, **options)
        task = asyncio.create_task(load.run())
        try:
            yield
            load.end()
            await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def answers(self, more: int, within_s: float = _WAIT_S) -> None:
        """Wait until so many more commands are answered."""
        enough = self._recorder.answers + more
        try:
            await until(lambda: self._recorder.answers >= enough, within_s)
        except TimeoutError:
            logs = "\n".join(f"--- worker {number}\n{one.said[-2000:]}" for number, one in enumerate(self.workers))
            raise AssertionError(f"no answers in {within_s:g} s\n{logs}") from None

    # --- the verdict

    async def healed(self) -> None:
        """Every command has an answer, and the lag is zero, within a bound."""
        began = time.monotonic()
        if self._load is not None:
            await self._load.settle(HEAL_S)
        await lag_is_zero(self.settings, HEAL_S - (time.monotonic() - began))

    async def holds(self, without: Collection[str] = (), *, from_log: bool = True) -> None:
        """Heal, and check: every promise is kept, but for rules that the fault itself sets aside."""
        await self.healed()
        evidence = await collect(self.settings, self.history, from_log=from_log)
        breaches = check(evidence, without)
        assert not breaches, "\n".join(breaches)
        assert any(operation.answer == "ok" for operation in evidence.operations), "nothing was appended"
