"""The work of `tidemark doctor`: one look at each thing that a worker needs, each told on its own."""

from typing import Literal

from aiokafka.errors import KafkaError
from msgspec import Struct
from msgspec.structs import replace

from processor.chain import genesis
from processor.cli.frame import UNREACHABLE, WRONG
from processor.errors import Misfit, TidemarkError, Unreachable
from processor.fit import check_fit
from processor.kafka.connection import client_options, reach_broker
from processor.kafka.ends import logs_by_place
from processor.kafka.feed import find
from processor.kafka.group import describe_group
from processor.kafka.topics import check_topics, topic_specs
from processor.messages import Checkpoint, Log
from processor.names import TopicNames
from processor.settings import Settings, effective
from processor.stores import open_store
from processor.stores.migrate import current

_QUICK_S = 5
_MEMORY = "memory:"


class Finding(Struct, frozen=True):
    """What was found of one thing. `exit_code` is 0 unless something has to be done."""

    what: str
    state: Literal["ok", "note", "wrong"]
    text: str
    exit_code: int = 0


async def examine(settings: Settings) -> list[Finding]:
    """Look at everything; what is wrong is a finding."""
    # Whoever asks what is wrong does not want to wait for what is not there.
    quick = settings.model_copy(update={"startup_timeout_s": min(settings.startup_timeout_s, _QUICK_S)})
    broker, store = await _broker(quick), await _store(quick)
    findings = [_settings(settings), broker, store]
    if broker.exit_code:
        return findings
    topics = await _topics(quick)
    findings += [*topics, await _workers(quick)]
    if store.state == "ok" and not any(finding.exit_code for finding in topics):
        findings += await _logs(quick)
    return findings


def _settings(settings: Settings) -> Finding:
    shown = effective(settings)
    named = ", ".join(f"{name}={shown[name]}" for name in ("store", "topic_prefix", "partitions", "group"))
    return Finding("settings", "ok", f"{named}; `tidemark config` shows all")


async def _broker(settings: Settings) -> Finding:
    try:
        await reach_broker(settings)
    except TidemarkError as error:
        hint = "Start it, or set TIDEMARK_BROKERS to where it is."
        return Finding("broker", "wrong", f"{error} {hint}", error.exit_code)
    return Finding("broker", "ok", f"{', '.join(settings.brokers)} answers")


async def _topics(settings: Settings) -> list[Finding]:
    try:
        found = await check_topics(settings)
    except TidemarkError as error:
        return [Finding("topics", "wrong", str(error), error.exit_code)]
    if not found:
        return [Finding("topics", "ok", f"all {len(topic_specs(settings))} are as they must be")]
    return [
        Finding("topics", "wrong" if finding.fatal else "note", finding.text, WRONG if finding.fatal else 0)
        for finding in found
    ]


async def _store(settings: Settings) -> Finding:
    if settings.store == _MEMORY:
        text = "memory: is made again from the log whenever a worker starts; for trying out, and for small logs"
        return Finding("store", "note", text)
    try:
        if current(settings.store) is None and settings.store.startswith("sqlite:"):
            return Finding("store", "note", "not made yet: a worker makes it when it starts, or `tidemark migrate up`")
        checkpoints = await _checkpoints(settings)
    except TidemarkError as error:
        hint = " Start it, or set TIDEMARK_STORE to where it is." if isinstance(error, Unreachable) else ""
        return Finding("store", "wrong", f"{error}{hint}", error.exit_code)
    events = sum(checkpoint.next_position - 1 for checkpoint in checkpoints.values())
    return Finding("store", "ok", f"opens, has the schema that is needed, and {events:,} events")


async def _workers(settings: Settings) -> Finding:
    """Who is in the consumer group."""
    try:
        group = await describe_group(settings)
    except KafkaError as error:
        return Finding("workers", "note", f"the group {settings.group} can't be looked at: {_name(error)}")
    if not group.members:
        return Finding("workers", "note", f"none runs in the group {settings.group}: start `tidemark worker`")
    return Finding("workers", "ok", f"{len(group.members)} in the group {settings.group}, which is {group.state}")


async def _logs(settings: Settings) -> list[Finding]:
    """Whether log and store belong together, as a worker would find, and how much waits."""
    names = {tenant: TopicNames.of(settings.topic_prefix, tenant) for tenant in settings.tenants}
    logs = list(logs_by_place(settings).values())
    before = await _checkpoints(settings)
    try:
        found = await find(client_options(settings), names, logs, {}, settings.startup_timeout_s)
    except (KafkaError, TimeoutError) as error:
        return [Finding("logs", "wrong", f"the topics can't be read: {_name(error)}", UNREACHABLE)]
    after = await _checkpoints(settings)
    misfits = []
    for log in logs:
        # A worker may go on between the looks: the log has no less than it had before, the feed no more than after.
        place = replace(after.get(log, _new(log)), next_offset=before.get(log, _new(log)).next_offset)
        try:
            check_fit(log, place, found[log], rebuilding=False)
        except Misfit as misfit:
            misfits.append(str(misfit))
    if misfits:
        more = f" And {len(misfits) - 1} more logs do not fit." if len(misfits) > 1 else ""
        return [Finding("logs", "wrong", misfits[0] + more, Misfit.exit_code)]
    waiting = sum(found[log].end - before.get(log, _new(log)).next_offset for log in logs)
    return [Finding("logs", "ok", f"{len(logs)} fit the store; {max(0, waiting):,} commands wait")]


def _new(log: Log) -> Checkpoint:
    return Checkpoint(epoch=0, next_offset=0, next_position=1, streams=0, chain=genesis(log))


async def _checkpoints(settings: Settings) -> dict[Log, Checkpoint]:
    store = open_store(settings.store, partitions=settings.partitions, read_only=True)
    try:
        await store.open()
        return await store.checkpoints()
    finally:
        await store.close()


def _name(error: Exception) -> str:
    return str(error) or type(error).__name__
