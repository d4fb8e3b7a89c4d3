"""What the benchmarks run on: a broker, a database server, and for each run topics and a store that are empty."""

import asyncio
import gc
import os
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Literal, NamedTuple
from uuid import uuid4

import asyncpg
from aiokafka.admin import AIOKafkaAdminClient

from benchmarks.load import PARTITIONS
from processor.kafka.topics import create_topics
from processor.messages import Log
from processor.names import DEFAULT_TENANT, TopicNames
from processor.settings import Settings
from processor.stores import open_store
from processor.stores.migrate import upgrade
from tests.servers import ROOMY_JAVA, Broker, Postgres, execute, fresh_database

StoreKind = Literal["sqlite", "postgres", "memory"]

LOGS = [Log(DEFAULT_TENANT, partition) for partition in range(PARTITIONS)]


# Or else, half a minute later, the system writes to the disk what a run has left behind, and slows the ones after it.
_DELETED_AT_ONCE = {"log.segment.delete.delay.ms": "1000"}

# A server that has run for a while writes its log over old files. One that is new fills a file of 16 MB with zeros at
# every 16 MB, and has it on the disk, while each commit waits: 0.3 s beside a broker on the same disk.
_WAL_FILES = 64
_WAL_KEPT = (f"min_wal_size={16 * _WAL_FILES}MB", f"max_wal_size={32 * _WAL_FILES}MB")
_MAKE_WAL_FILES = f"""
DO $$ BEGIN
    FOR _ IN 1..{_WAL_FILES} LOOP
        PERFORM pg_logical_emit_message(false, '', '');
        PERFORM pg_switch_wal();
    END LOOP;
END $$
"""


class Site(NamedTuple):
    """The topics and the store of one run."""

    settings: Settings
    names: TopicNames

    def environment(self, **more: str) -> dict[str, str]:
        """For a process that works here; `more` settings by name."""
        ours = {
            "TIDEMARK_BROKERS": ",".join(self.settings.brokers),
            "TIDEMARK_STORE": self.settings.store,
            "TIDEMARK_TOPIC_PREFIX": self.settings.topic_prefix,
            "TIDEMARK_GROUP": self.settings.group,
            "TIDEMARK_HTTP": self.settings.http,
            "TIDEMARK_LOG_FORMAT": "json",
            **{f"TIDEMARK_{name.upper()}": value for name, value in more.items()},
        }
        others = {name: value for name, value in os.environ.items() if not name.startswith(("TIDEMARK_", "OTEL_"))}
        return others | ours


class Bed:
    """Servers that outlive the runs, and a folder for SQLite's files on the disk of the working directory."""

    def __init__(self, bootstrap: str, postgres: str, folder: Path) -> None:
        self.bootstrap = bootstrap
        self._postgres = postgres
        self._folder = folder

    @asynccontextmanager
    async def site(self, kind: StoreKind) -> AsyncIterator[Site]:
        """Topics and a store for one run; gone afterwards."""
        await self.settle()
        name = f"bench-{uuid4().hex[:8]}"
        with self._store(kind, name) as url:
            settings = Settings(
                brokers=[self.bootstrap], store=url, topic_prefix=f"{name}.", group=name, partitions=PARTITIONS,
                http="127.0.0.1:0",
            )  # fmt: skip
            await _make_store(settings)
            await create_topics(settings)
            names = TopicNames.of(settings.topic_prefix, DEFAULT_TENANT)
            try:
                yield Site(settings, names)
            finally:
                await _delete_topics(self.bootstrap, names)

    async def settle(self) -> None:
        """Have on the disk what earlier runs left behind, or else it is written in the midst of the next one.

        The same with what they left behind in memory.
        """
        gc.collect()
        connection = await asyncpg.connect(self._postgres)
        try:
            await connection.execute("CHECKPOINT")
        finally:
            await connection.close()
        await asyncio.to_thread(os.sync)

    @contextmanager
    def _store(self, kind: StoreKind, name: str) -> Iterator[str]:
        if kind == "memory":
            yield "memory:"
            return
        if kind == "postgres":
            with fresh_database(self._postgres, name) as url:
                yield url
            return
        folder = self._folder / name
        folder.mkdir()
        try:
            yield f"sqlite:///{folder}/tidemark.db"
        finally:
            shutil.rmtree(folder)


@contextmanager
def _without_collector() -> Iterator[None]:
    """Where a hundred thousand commands wait to be sent, a collection of cycles stops the clients for up to 0.4 s."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def bed(*, process_group: int = -1) -> Iterator[Bed]:
    """A bed on the servers named by `TIDEMARK_BENCH_KAFKA` and `TIDEMARK_BENCH_POSTGRES`, or on ones of its own.

    Its own are set up as usual: a broker with a gigabyte, a PostgreSQL that has on the disk what is committed, and the
    files of its log there already. With `process_group` 0, a terminal's Ctrl-C does not reach them.
    """
    with ExitStack() as servers:
        bootstrap = os.environ.get("TIDEMARK_BENCH_KAFKA")
        if bootstrap is None:
            say("starting a broker")
            broker = Broker(ROOMY_JAVA, _DELETED_AT_ONCE)
            broker.process_group = process_group
            bootstrap = servers.enter_context(broker).bootstrap
        postgres = os.environ.get("TIDEMARK_BENCH_POSTGRES")
        if postgres is None:
            say("starting PostgreSQL")
            server = Postgres(_WAL_KEPT)
            server.process_group = process_group
            postgres = servers.enter_context(server).url()
            execute(postgres, _MAKE_WAL_FILES)
        folder = Path(mkdtemp(prefix="tidemark-bench-"))
        servers.callback(shutil.rmtree, folder, ignore_errors=True)
        with _without_collector():
            yield Bed(bootstrap, postgres, folder)


async def _make_store(settings: Settings) -> None:
    """With its schema and its first checkpoints, so that no run is the one that makes them."""
    if settings.store == "memory:":
        return
    upgrade(settings.store, partitions=settings.partitions)
    store = open_store(settings.store, partitions=settings.partitions)
    await store.open()
    try:
        await store.claim(LOGS)
    finally:
        await store.close()


async def _delete_topics(bootstrap: str, names: TopicNames) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.delete_topics(list(names.all()))
    finally:
        await admin.close()


def say(text: str) -> None:
    """Progress, beside the result."""
    print(text, file=sys.stderr, flush=True)
