"""The worker: everything put together, from settings to a running pipeline."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial

import structlog
from aiokafka.errors import KafkaError

from processor.cycle import Cycles
from processor.errors import BrokerUnreachable
from processor.fit import Found
from processor.http.health import Health, health_server
from processor.kafka.app import GroupSource, build_app, run_app
from processor.kafka.connection import client_options
from processor.kafka.feed import find
from processor.kafka.ownership import LogStatus, Ownership
from processor.kafka.publish import LogPublisher, Outbound
from processor.kafka.rights import require_rights
from processor.kafka.topics import message_bytes, require_topics
from processor.kafka.watch import Watch
from processor.messages import Log
from processor.names import TopicNames
from processor.settings import Settings
from processor.store import Store
from processor.stores import open_store
from processor.telemetry.export import Telemetry
from processor.telemetry.reading import Reading

logger = structlog.get_logger(__name__)

_FIND_TIMEOUT_S = 30.0


class Worker:
    """One worker process. `run` until `stop` is set; `statuses` says what each assigned log is at."""

    def __init__(self, settings: Settings, *, rebuild: bool = False) -> None:
        self._settings = settings
        self._rebuild = rebuild
        self._stop = asyncio.Event()
        self._crash: BaseException | None = None
        self._ownership: Ownership | None = None
        self._watch: Watch | None = None
        self._names = {tenant: TopicNames.of(settings.topic_prefix, tenant) for tenant in settings.tenants}
        self._telemetry = Telemetry(settings, self._names, self._reading)

    @property
    def statuses(self) -> Mapping[Log, LogStatus]:
        """The assigned logs."""
        return self._ownership.statuses if self._ownership is not None else {}

    def stop(self) -> None:
        """End cleanly: let go of the logs, publish what is committed, leave the group."""
        self._stop.set()

    async def run(self) -> None:
        """Serve. Raises `TidemarkError`s for what is missing at the start, and what the pipeline crashed with."""
        settings = self._settings
        for finding in await require_topics(settings):
            logger.warning("a topic is not as it should be", topic=finding.topic, problem=finding.text)
        await require_rights(settings)
        store = open_store(settings.store, partitions=settings.partitions, durability=settings.durability)
        await store.open()
        outbound = self._outbound()
        try:
            await self._start(outbound)
            metrics = self._telemetry.prometheus_text
            health = partial(self._health, outbound)
            async with health_server(settings.http_host, settings.http_port, health, metrics):
                await self._serve(store, outbound)
        finally:
            await outbound.stop()
            await store.close()
            await self._telemetry.close()
        if self._crash is not None:
            raise self._crash

    def _health(self, outbound: Outbound) -> Health:
        hot_streams = self._telemetry.meter.hot_streams(self._settings.hot_streams)
        if self._ownership is None or self._watch is None:
            return Health(False, {}, "not asked yet")
        logs = {log: (status.state, status.reason) for log, status in self.statuses.items()}
        unwritable = outbound.reply_topics.unwritable
        watch = self._watch
        return Health(self._ownership.joined, logs, watch.store_fault, watch.stuck, hot_streams, unwritable)

    def _reading(self) -> Reading:
        return self._watch.reading() if self._watch is not None else Reading({}, [], None)

    def _outbound(self) -> Outbound:
        settings = self._settings
        return Outbound(
            client_options(settings),
            compression=None if settings.compression == "none" else settings.compression,
            max_record_bytes=message_bytes(settings),
            meter=self._telemetry.meter,
        )

    async def _start(self, outbound: Outbound) -> None:
        try:
            await outbound.start()
        except KafkaError as error:
            raise BrokerUnreachable(f"The broker does not take a producer: {error!r}.") from None

    async def _serve(self, store: Store, outbound: Outbound) -> None:
        settings = self._settings
        names, meter = self._names, self._telemetry.meter
        app = build_app(settings, names)
        source = GroupSource(app, names)

        def publisher(log: Log, feed_position: int, reply_from: int) -> LogPublisher:
            return LogPublisher(
                log,
                outbound,
                names[log.tenant],
                is_allowed=settings.allows_reply_to,
                feed_position=feed_position,
                reply_from=reply_from,
                backlog=settings.publish_backlog,
                on_room=app.cycles.wake,
                meter=meter,
            )

        async def found(logs: Sequence[Log], group_offsets: Mapping[Log, int | None]) -> dict[Log, Found]:
            return await find(client_options(settings), names, logs, group_offsets, _FIND_TIMEOUT_S)

        ownership = self._ownership = app.ownership = Ownership(
            store,
            source,
            found,
            publisher,
            partitions=settings.partitions,
            retention_ms=settings.rules.retention_ms,
            rebuild=self._rebuild,
            on_crash=self._crashed,
        )
        cycles = app.cycles = ownership.cycles = Cycles(
            store,
            settings.rules,
            settings.limits,
            batch_size=settings.batch_size,
            linger_s=settings.linger_ms / 1000,
            on_lost=ownership.lost,
            meter=meter,
        )
        watch = self._watch = Watch(
            store,
            ownership,
            source.fetched,
            faults=lambda: meter.faults,
            stall_timeout_s=settings.stall_timeout_s,
        )
        tasks = [asyncio.create_task(part) for part in (cycles.run(), ownership.keep_house(), watch.run())]
        for task in tasks:
            task.add_done_callback(self._task_done)
        try:
            await run_app(app, self._stop)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._crashed(error)

    def _crashed(self, error: BaseException) -> None:
        """A fault that no retry mends: end the process rather than go on with a part of it missing."""
        logger.error("the pipeline crashed, ending", error=repr(error))
        self._crash = self._crash or error
        self._stop.set()
