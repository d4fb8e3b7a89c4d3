"""One run, from its seed to its verdict."""

import asyncio
import logging
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import structlog
from msgspec import Struct

from processor import cycle
from processor.errors import Misfit
from processor.kafka import feed, ownership, publish
from processor.kafka.rebuild import _Rebuild
from processor.messages import Log, RecordedEvent
from processor.partition import partition_of
from processor.settings import Settings
from processor.stores.memory import MemoryStore
from tests.simulation.broker import NAMES, BrokerClient
from tests.simulation.chance import Profile
from tests.simulation.checker import Violation
from tests.simulation.clients import Client
from tests.simulation.consumer import SimulatedConsumer
from tests.simulation.nemesis import Nemesis
from tests.simulation.stores import at_once
from tests.simulation.worker import LIMITS
from tests.simulation.world import Parts, World

_SETTLED_WITHIN_S = 120.0
_LOOK_EVERY_S = 0.25
_REAL = Parts()


class Result(Struct):
    """What came of a seed: the promise that was not kept, if any, and what happened, if that was asked for."""

    seed: int
    violation: str | None
    notes: list[str]


def run_seed(seed: int, parts: Parts = _REAL, *, trace: bool = False) -> Result:
    """Run a seed. The same seed comes to the same result, wherever and whenever it is run."""
    world = World(seed, parts)
    if trace:
        world.notes = [str(world.profile)]
    with (
        _logging_to(world),
        _as_drawn(world.profile, parts),
        patch.object(feed, "AIOKafkaConsumer", SimulatedConsumer),
    ):
        try:
            world.loop.run_until_complete(_run(world))
        except Violation as violation:
            return Result(seed, str(violation), world.notes or [])
    return Result(seed, None, world.notes or [])


def run_seeds(seeds: Iterable[int], parts: Parts = _REAL) -> list[Result]:
    """Run seeds, one after the other."""
    return [run_seed(seed, parts) for seed in seeds]


@contextmanager
def _as_drawn(profile: Profile, parts: Parts) -> Iterator[None]:
    """What a worker has fixed is drawn as well: a run is too short to come to its real bounds."""
    others: tuple[tuple[object, str, object], ...] = (
        (cycle, "_LITTLE", profile.little),
        (cycle, "_AT_A_STRETCH", profile.at_a_stretch),
        (cycle, "_HEADS_KEPT", profile.heads_kept),
        (cycle, "REFUSED_KEPT", profile.refused_kept),
        (cycle, "_CAREFUL_CYCLES", profile.careful_cycles),
        (ownership, "REFUSED_KEPT", profile.refused_kept),
        (ownership, "_FORGET_EVERY", profile.forget_every),
        (ownership, "_AGAIN_EVERY", profile.again_every),
        (ownership, "_FORGET_AT_ONCE", profile.forget_at_once),
        (publish, "_PAGE", profile.page),
        (publish, "_TOGETHER", profile.together),
        (feed, "_LOOK_BACK", profile.look_back),
        *parts.methods,
    )
    with ExitStack() as patches:
        for owner, name, other in others:
            patches.enter_context(patch.object(owner, name, other))
        yield


async def _run(world: World) -> None:
    world.loop.spawn(world.loop.world, world.group.run())
    for host in world.hosts:
        world.start(host)
    nemesis = world.loop.spawn(world.loop.world, Nemesis(world).run())
    await asyncio.gather(*(client.run() for client in _clients(world)))
    nemesis.cancel()
    world.heal()
    await _settle(world)
    for log, checkpoint in at_once(world.store.checkpoints()).items():
        events = at_once(world.store.read_log(log, 0, len(world.checker.histories[log].events) + 1))
        world.checker.histories[log].check_end(world.rules, LIMITS, events, checkpoint)
    await _check_rebuilt(world)


async def _check_rebuilt(world: World) -> None:
    """That a store in memory, made again from the logs, holds what was committed, and that a gap is not passed over."""
    settings = Settings(
        partitions=world.rules.partitions,
        refusal_retention_s=world.rules.retention_ms // 1000,
        max_events=LIMITS.events,
    )
    store = MemoryStore()
    consumer = SimulatedConsumer(client=BrokerClient(world.broker, world.link, world.chance))
    is_whole = not any(world.broker.begin(NAMES.commands, log.partition) for log in world.logs)
    try:
        await _Rebuild(settings, store).run(consumer, lambda _done, _of: None)
    except Misfit as misfit:
        if is_whole:
            raise Violation(f"not made again from the log: {misfit}") from None
        return
    for log, history in world.checker.histories.items():
        history.demand(is_whole, "made again from a log without its beginning")
        history.demand(await _events(store, log) == history.events, "made again from the log, it holds other events")


async def _events(store: MemoryStore, log: Log) -> list[RecordedEvent]:
    return await store.read_log(log, 0, (await store.checkpoints())[log].next_position)


def _clients(world: World) -> list[Client]:
    profile = world.profile
    streams = [f"order-{number}" for number in range(profile.streams)]

    def version(stream: str) -> int:
        log = world.logs[partition_of(stream.encode(), profile.partitions)]
        return world.checker.histories[log].versions.get(stream, 0)

    each = profile.commands // profile.clients
    return [Client(world.random, world.broker, streams, each, version) for _ in range(profile.clients)]


async def _settle(world: World) -> None:
    deadline = world.loop.time() + _SETTLED_WITHIN_S
    while not all(history.is_settled for history in world.checker.histories.values()):
        if world.loop.time() > deadline:
            raise Violation(f"{_SETTLED_WITHIN_S:.0f} s after the last fault, {_state(world)}")
        await asyncio.sleep(_LOOK_EVERY_S)


def _state(world: World) -> str:
    lines = [
        f"{log} has {len(history.replies)} of {len(history.commands)} commands answered, and its feed is at "
        f"{history.feed_position} of {len(history.events)}"
        for log, history in world.checker.histories.items()
        if not history.is_settled
    ]
    for host in world.hosts:
        statuses = host.worker.ownership.statuses if host.worker else {}
        lines += [f"worker {host.number} says of {log}: {status}" for log, status in statuses.items()]
    return "; ".join(lines)


@contextmanager
def _logging_to(world: World) -> Iterator[None]:
    """What the pipeline logs goes to the trace, or nowhere."""
    before = structlog.get_config()
    level = logging.CRITICAL if world.notes is None else logging.DEBUG

    def note(_: object, name: str, event: structlog.types.EventDict) -> str:
        text = event.pop("event")
        world.note(f"{name}: {text} {event}")
        raise structlog.DropEvent

    structlog.configure(
        processors=[note], wrapper_class=structlog.make_filtering_bound_logger(level), cache_logger_on_first_use=False
    )
    try:
        yield
    finally:
        structlog.configure(**before)
