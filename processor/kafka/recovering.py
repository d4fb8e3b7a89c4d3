"""Carrying out what an operator has chosen for logs that do not fit the store. No worker may run meanwhile."""

from collections.abc import Callable, Sequence
from functools import partial

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from processor.chain import genesis
from processor.errors import BrokerUnreachable, Misfit, StoreInUse
from processor.fit import Found
from processor.kafka.connection import client_options
from processor.kafka.feed import find
from processor.kafka.group import describe_group, set_group_offsets
from processor.kafka.outgoing import EventRecords
from processor.kafka.publish import Lane, Outbound
from processor.kafka.topics import message_bytes
from processor.messages import Checkpoint, Log
from processor.names import TopicNames
from processor.recover import Choice
from processor.settings import Settings
from processor.store import Committed, Store
from processor.stores import open_store

Choose = Callable[[Log, Checkpoint, Found], Choice]

_PAGE = 1_000


async def recover(settings: Settings, logs: Sequence[Log], choose: Choose, *, dry_run: bool) -> list[Choice]:
    """Make the choice for each log and, unless it is only a trial, carry all of them out in one transaction.

    Raises `StoreInUse` where workers run, `Misfit` where a log moved meanwhile, and what the store and the broker do.
    """
    found = await _found(settings, logs)
    if not dry_run:
        await _require_no_workers(settings)
    store = open_store(settings.store, partitions=settings.partitions, read_only=dry_run)
    await store.open()
    try:
        checkpoints = await _checkpoints(store, logs) if dry_run else await store.claim(logs)
        choices = [choose(log, checkpoints[log], found[log]) for log in logs]
        if not dry_run:
            await _commit(settings, store, choices)
    finally:
        await store.close()
    return choices


async def _commit(settings: Settings, store: Store, choices: Sequence[Choice]) -> None:
    plans = [choice.plan for choice in choices if choice.plan is not None]
    if not plans:
        return
    ended = await store.commit(plans)
    if any(how is not Committed.YES for how in ended.values()):
        raise Misfit("a log moved meanwhile: end all workers of this store and try again; nothing was half done")
    places = {plan.log: TopicNames.of(settings.topic_prefix, plan.log.tenant).commands for plan in plans}
    offsets = {TopicPartition(places[plan.log], plan.log.partition): plan.after.acknowledged_offset for plan in plans}
    await set_group_offsets(settings, offsets)


async def republish(
    settings: Settings, logs: Sequence[Log], on_events: Callable[[int], None], *, dry_run: bool
) -> dict[Log, tuple[int, int]]:
    """Publish what each feed lacks of the store at its end, in order; by log, the first and the last position.

    `on_events` is told how many are out. Raises what `recover` does.
    """
    found = await _found(settings, logs)
    if not dry_run:
        await _require_no_workers(settings)
    store = open_store(settings.store, partitions=settings.partitions, read_only=True)
    outbound = Outbound(client_options(settings), compression=None, max_record_bytes=message_bytes(settings))
    await store.open()
    try:
        checkpoints = await _checkpoints(store, logs)
        missing = {
            log: (found[log].feed_position + 1, checkpoints[log].next_position - 1)
            for log in logs
            if found[log].feed_position < checkpoints[log].next_position - 1
        }
        if missing and not dry_run:
            await outbound.start()
            out = 0
            for log, (first, last) in missing.items():
                topic = TopicNames.of(settings.topic_prefix, log.tenant).events
                for done in range(first - 1, last, _PAGE):
                    events = await store.read_log(log, done, min(_PAGE, last - done))
                    await outbound.send(log.partition, [Lane(topic, events, partial(EventRecords, log))])
                    out += len(events)
                    on_events(out)
    finally:
        await outbound.stop()
        await store.close()
    return missing


async def _found(settings: Settings, logs: Sequence[Log]) -> dict[Log, Found]:
    names = {log.tenant: TopicNames.of(settings.topic_prefix, log.tenant) for log in logs}
    try:
        return await find(client_options(settings), names, logs, {}, settings.startup_timeout_s)
    except TimeoutError:
        raise BrokerUnreachable(f"The topics could not be read in {settings.startup_timeout_s} s.") from None


async def _require_no_workers(settings: Settings) -> None:
    try:
        group = await describe_group(settings)
    except KafkaError:
        return  # no such group, so nobody in it
    if group.members:
        raise StoreInUse(f"{len(group.members)} workers run in the group {settings.group}: end them first")


async def _checkpoints(store: Store, logs: Sequence[Log]) -> dict[Log, Checkpoint]:
    found = await store.checkpoints()
    untouched = {log: Checkpoint(0, 0, 1, 0, genesis(log)) for log in logs}
    return {log: found.get(log, untouched[log]) for log in logs}
