"""The Faust application: its agents take the slices, its group membership says which logs are ours."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, cast

import faust
from faust.app.base import BootStrategy
from faust.app.base import logger as faust_logger
from faust.types import TP

from processor.cycle import Cycles
from processor.errors import Misfit
from processor.kafka.assignor import LoadsByTopic
from processor.kafka.connection import client_options
from processor.kafka.ownership import Ownership
from processor.kafka.slices import SCHEME, Fetched, SliceConsumer, SliceSchema
from processor.messages import Log, Slice
from processor.names import TopicNames
from processor.settings import Settings

_WANT_NOTHING_S = 1.0
_WATCH_GROUP_EVERY_S = 1.0


class _ConsumerOnly(BootStrategy):
    """Faust's own producer is not idempotent and its web views are no probes: neither is started."""

    enable_kafka_producer = False
    enable_web = False


class SliceApp(faust.App):
    """A Faust app whose consumer fetches slices for the logs that want them."""

    BootStrategy = _ConsumerOnly
    logger = faust_logger
    consumer_options: dict[str, Any]
    cycles: Cycles
    ownership: Ownership
    log_by_topic: Mapping[str, str]

    def _create_directories(self) -> None:
        """Faust's tables are not used: nothing is kept in the working directory."""

    def log_of(self, topic: str, partition: int) -> Log:
        """The log that a partition of a commands topic is."""
        return Log(self.log_by_topic[topic], partition)

    async def wants_records(self, tps: set[TP]) -> set[TP]:
        """The partitions to fetch now; where there is none, waits a while until there may be some."""
        self.cycles.wanting.clear()
        logs = self.cycles.to_fetch()
        wanted = {tp for tp in tps if self.log_of(*tp) in logs}
        if not wanted:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.cycles.wanting.wait(), _WANT_NOTHING_S)
        return wanted

    def on_out_of_range(self, log: Log, offset: int) -> None:
        """The broker has nothing at the offset that is next."""
        self.ownership.out_of_range(log, offset)

    def loads_by_topic(self) -> LoadsByTopic:
        """What came in lately on the partitions that were assigned, in commands a minute."""
        topic_of = {tenant: topic for topic, tenant in self.log_by_topic.items()}
        loads: LoadsByTopic = {}
        for log, load in self.ownership.loads.a_minute().items():
            loads.setdefault(topic_of[log.tenant], {})[log.partition] = load
        return loads


class GroupSource:
    """The consumer group as `Ownership` sees it."""

    def __init__(self, app: SliceApp, names: Mapping[str, TopicNames]) -> None:
        self._app = app
        self._names = names

    def _tp(self, log: Log) -> TP:
        return TP(self._names[log.tenant].commands, log.partition)

    @property
    def _consumer(self) -> SliceConsumer:
        return cast(SliceConsumer, self._app.consumer)

    async def group_offsets(self, logs: Sequence[Log]) -> dict[Log, int | None]:
        """The offsets that are committed to the group, None where there is none."""
        reader = self._consumer.reader
        found = await reader.committed_offsets([self._tp(log) for log in logs])
        return {log: found[self._tp(log)] for log in logs}

    async def seek(self, seeks: Mapping[Log, tuple[int, int]]) -> set[Log]:
        """Read on from (seek number, offset)."""
        reader = self._consumer.reader
        gone = await reader.seek_slices({self._tp(log): seek for log, seek in seeks.items()})
        return {self._app.log_of(*tp) for tp in gone}

    async def fetched(self, logs: Sequence[Log]) -> dict[Log, Fetched]:
        """How far the fetching is. Raises aiokafka's errors."""
        reader = self._consumer.reader
        found = await reader.fetched([self._tp(log) for log in logs])
        return {self._app.log_of(*tp): fetched for tp, fetched in found.items()}

    async def commit(self, offsets: Mapping[Log, int]) -> bool:
        """Commit offsets to the group; returns whether it is done."""
        reader = self._consumer.reader
        return await reader.commit_offsets({self._tp(log): offset for log, offset in offsets.items()})


def build_app(settings: Settings, names: Mapping[str, TopicNames]) -> SliceApp:
    """The app with an agent for each tenant's commands. `cycles` and `ownership` are set before it is started."""
    app = SliceApp(
        settings.group,
        broker=[f"{SCHEME}://{address}" for address in settings.brokers],
        autodiscover=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        stream_wait_empty=False,
        store="memory://",
        broker_request_timeout=max(90.0, settings.session_timeout_ms / 1000 + 10),
        broker_session_timeout=settings.session_timeout_ms / 1000,
    )
    app.consumer_options = dict(
        client_options(settings),
        group_id=settings.group,
        group_instance_id=settings.group_instance_id,
        max_poll_records=settings.batch_size,
        max_partition_fetch_bytes=settings.fetch_partition_bytes,
        # A log whose records were being taken when a fetch began is asked for again when that comes back.
        fetch_max_wait_ms=100,
        session_timeout_ms=settings.session_timeout_ms,
        heartbeat_interval_ms=settings.session_timeout_ms // 10,
        rebalance_timeout_ms=60_000,
        # Faust fetches without polling, which is what this would watch; the watchdog is ours.
        max_poll_interval_ms=2**31 - 1,
    )
    app.log_by_topic = {name.commands: tenant for tenant, name in names.items()}
    for tenant, name in names.items():
        topic = app.topic(name.commands, acks=False, schema=SliceSchema())
        app.agent(topic, name=f"decide-{tenant}")(_taking(app))
    app.on_partitions_assigned.connect(cast(Any, _on_assigned), weak=False)
    app.on_partitions_revoked.connect(cast(Any, _on_revoked), weak=False)
    return app


def _taking(app: SliceApp) -> Callable[[Any], Any]:
    async def take(stream: Any) -> None:
        """Hand the slices of each fetch on to the cycles. What escapes an agent counts as done, so nothing may."""
        async for slices in stream:
            for piece in slices:
                _offer(app, piece)

    return take


def _offer(app: SliceApp, piece: Slice) -> None:
    try:
        app.cycles.offer(piece)
    except Misfit as misfit:
        app.ownership.misfit(piece.log, misfit)


async def _on_assigned(app: SliceApp, assigned: set[TP], **kwargs: Any) -> None:
    app.ownership.assigned(app.log_of(*tp) for tp in assigned if tp.topic in app.log_by_topic)


async def _on_revoked(app: SliceApp, revoked: set[TP], **kwargs: Any) -> None:
    logs = [app.log_of(*tp) for tp in revoked if tp.topic in app.log_by_topic]
    cast(SliceConsumer, app.consumer).reader.forget_seeks(revoked)
    await app.ownership.revoked(logs)


async def run_app(app: SliceApp, stop: asyncio.Event) -> None:
    """Run until `stop` is set. Raises what the app crashed with, or why the group can't be joined any more.

    Faust's start takes until the first assignment, for which a group may wait long: it can be ended in the midst of it.
    """
    starting = asyncio.create_task(app.start())
    watching = asyncio.create_task(_watch_group(app))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({starting, watching, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            await app.wait(asyncio.wait({watching, stopping}, return_when=asyncio.FIRST_COMPLETED))
        if app.crash_reason is not None:
            raise app.crash_reason
        if watching.done():
            watching.result()
    finally:
        watching.cancel()
        stopping.cancel()
        try:
            # While the group's connection still stands, so that what was acknowledged can be written down there too.
            await app.ownership.close()
        finally:
            # Whatever the store says to that: the connections would stay open.
            await app.stop()
            await asyncio.gather(starting, watching, stopping, return_exceptions=True)


async def _watch_group(app: SliceApp) -> None:
    """Raises when the membership has failed: without a log to fetch for, nothing else would ever ask."""
    reader = cast(SliceConsumer, app.consumer).reader
    while True:
        await asyncio.sleep(_WATCH_GROUP_EVERY_S)
        await reader.check_membership()
