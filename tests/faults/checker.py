"""Whether a run has kept the promises: a history against the store, the replies, the feed and Kafka's offsets.

Each rule is a function of all the evidence that yields a sentence for every breach. `check` runs them all.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from msgspec import Struct

from processor.messages import (
    Accepted,
    Checkpoint,
    Conflict,
    Duplicate,
    ExpectedVersion,
    Outcome,
    RecordedEvent,
    Rejected,
)
from tests.faults.history import Operation

_MOST = 5

Place = tuple[int, int]
"""Partition and offset of a command."""


class Asked(NamedTuple):
    """A command as it is in the log, with its events' ids, given or derived."""

    stream: str
    command_id: str | None
    expected_version: ExpectedVersion
    event_ids: tuple[str, ...]


class Fed(NamedTuple):
    """An event as it is on the feed."""

    position: int
    stream: str
    version: int
    event_id: str
    data: bytes


class Evidence(Struct):
    """What is there after a run; all by partition of the one tenant.

    commands: what the log asks for, by offset; records that are no commands are missing. replies: all that is on the
    standing topics. group: Kafka's committed offsets. ends: where the logs end. damage: what `verify` says of the
    store. rebuilt: the chain that the log alone leads to.
    """

    operations: list[Operation]
    commands: dict[Place, Asked]
    events: dict[int, list[RecordedEvent]]
    checkpoints: dict[int, Checkpoint]
    replies: list[Outcome]
    feed: dict[int, list[Fed]]
    group: dict[int, int]
    ends: dict[int, int]
    damage: list[str]
    rebuilt: dict[int, bytes]

    def all_events(self) -> Iterator[tuple[int, RecordedEvent]]:
        for partition, events in self.events.items():
            for event in events:
                yield partition, event


Rule = Callable[[Evidence], Iterator[str]]


def gapless(evidence: Evidence) -> Iterator[str]:
    """A partition's positions are 1..n, and a stream's versions are."""
    for partition, events in evidence.events.items():
        positions = [event.position for event in events]
        if positions != list(range(1, len(events) + 1)):
            yield f"partition {partition}: the positions are not 1 to {len(events)}"
        watermark = evidence.checkpoints[partition].next_position - 1
        if watermark != len(events):
            yield f"partition {partition}: {len(events)} events, but the watermark is {watermark}"
    versions: dict[str, list[int]] = defaultdict(list)
    for _, event in evidence.all_events():
        versions[event.stream].append(event.version)
    for stream, found in versions.items():
        if found != list(range(1, len(found) + 1)):
            yield f"{stream}: the versions are not 1 to {len(found)}, in the order of the positions"


def one_winner(evidence: Evidence) -> Iterator[str]:
    """Of the commands with the same exact expected version, at most one is accepted, and it goes right behind it."""
    first_version: dict[Place, int] = {}
    for partition, event in evidence.all_events():
        place = (partition, event.offset)
        first_version[place] = min(event.version, first_version.get(place, event.version))
    first_version |= {_place(reply): reply.first_version for reply in evidence.replies if isinstance(reply, Accepted)}
    winners: dict[tuple[str, int], list[Place]] = defaultdict(list)
    for place, first in first_version.items():
        asked = evidence.commands.get(place)
        if asked is None or not isinstance(asked.expected_version, int):
            continue
        winners[asked.stream, asked.expected_version].append(place)
        if first != asked.expected_version + 1:
            yield f"{place}: accepted at version {first}, where {asked.expected_version} was expected"
    for (stream, expected), places in winners.items():
        if len(places) > 1:
            yield f"{stream}: {len(places)} commands that expected version {expected} were accepted"


def one_effect(evidence: Evidence) -> Iterator[str]:
    """However often a command was sent, its events are in the stream once, or not at all, adjacent and in order."""
    ids = Counter((event.stream, event.event_id) for _, event in evidence.all_events())
    for (stream, event_id), count in ids.items():
        if count > 1:
            yield f"{stream}: event {event_id} is there {count} times"
    versions = {(event.stream, event.event_id): event.version for _, event in evidence.all_events()}
    for place, asked in evidence.commands.items():
        found = [version for event_id in asked.event_ids if (version := versions.get((asked.stream, event_id)))]
        if found and found != list(range(found[0], found[0] + len(asked.event_ids))):
            yield f"{place}: of its {len(asked.event_ids)} events the stream has the versions {found}"


def one_verdict(evidence: Evidence) -> Iterator[str]:
    """All answers to a command agree, and every command that is decided has one."""
    verdicts: dict[object, object] = {}
    for place, outcome in ((_place(reply), reply) for reply in evidence.replies):
        if verdicts.setdefault(place, outcome) != outcome:
            yield f"{place}: two replies that differ"
    for partition, checkpoint in evidence.checkpoints.items():
        for offset in range(min(checkpoint.next_offset, evidence.ends.get(partition, 0))):
            if (partition, offset) not in verdicts:
                yield f"{(partition, offset)}: decided, and not answered"
    told = ((outcome.command_id, outcome) for operation in evidence.operations for outcome in operation.outcomes)
    for command_id, outcome in (*((reply.command_id, reply) for reply in evidence.replies), *told):
        if isinstance(command_id, str) and verdicts.setdefault(command_id, _verdict(outcome)) != _verdict(outcome):
            yield f"command {command_id}: two verdicts"


def accepted_is_stored(evidence: Evidence) -> Iterator[str]:
    """Every event belongs to an accepted command, and the events of every accepted command are in the store."""
    stored: dict[Place, list[RecordedEvent]] = defaultdict(list)
    for partition, event in evidence.all_events():
        stored[partition, event.offset].append(event)
    accepted = {_place(reply): reply for reply in evidence.replies if isinstance(reply, Accepted)}
    for place in stored.keys() - accepted.keys():
        yield f"{place}: events are stored of a command that was not accepted"
    for place, reply in accepted.items():
        yield from _differences(place, reply, stored.get(place, []))
        asked = evidence.commands.get(place)
        if asked is None or list(asked.event_ids) != reply.event_ids or asked.stream != reply.stream:
            yield f"{place}: accepted, but the log asks for something else"


def _differences(place: Place, reply: Accepted | Duplicate, events: Iterable[RecordedEvent]) -> Iterator[str]:
    found = [(event.stream, event.version, event.position, event.event_id) for event in events]
    said = [
        (reply.stream, reply.first_version + index, reply.first_position + index, event_id)
        for index, event_id in enumerate(reply.event_ids)
    ]
    if found != said and isinstance(reply, Accepted):
        yield f"{place}: the reply says {len(said)} events from version {reply.first_version}, the store differs"
    elif not set(said) <= set(found):
        yield f"{place}: a duplicate of events that the store does not have there"


def nothing_made_up(evidence: Evidence) -> Iterator[str]:
    """What is on the feed, in a reply or in a client's hand is in the store, and says the same."""
    by_position = {(partition, event.position): event for partition, event in evidence.all_events()}
    for partition, records in evidence.feed.items():
        for fed in records:
            event = by_position.get((partition, fed.position))
            if event is None or fed != (event.position, event.stream, event.version, event.event_id, event.data):
                yield f"partition {partition}: the feed's position {fed.position} is not what the store has there"
    told = (outcome for operation in evidence.operations for outcome in operation.outcomes)
    for outcome in (*evidence.replies, *told):
        if isinstance(outcome, Accepted | Duplicate):
            positions = range(outcome.first_position, outcome.last_position + 1)
            events = [event for at in positions if (event := by_position.get((outcome.partition, at)))]
            yield from _differences(_place(outcome), outcome, events)


def contents_are_kept(evidence: Evidence) -> Iterator[str]:
    """What a client was told is stored has the content that the client gave."""
    by_version = {(event.stream, event.version): event for _, event in evidence.all_events()}
    for operation in evidence.operations:
        for outcome in operation.outcomes[:1]:
            if not isinstance(outcome, Accepted | Duplicate):
                continue
            for index, given in enumerate(operation.command.events):
                event = by_version.get((outcome.stream, outcome.first_version + index))
                if event is None or (event.type, event.data) != (given.type, bytes(given.data)):
                    yield f"{outcome.stream}: version {outcome.first_version + index} is not what was acknowledged"


def feed_in_order(evidence: Evidence) -> Iterator[str]:
    """First occurrences on the feed are all positions in order; what is repeated lies behind the highest one."""
    for partition, records in evidence.feed.items():
        highest = 0
        for fed in records:
            if fed.position > highest + 1:
                yield f"partition {partition}: on the feed, position {fed.position} comes after {highest}"
            highest = max(highest, fed.position)
    for partition, events in evidence.events.items():
        last = max((fed.position for fed in evidence.feed.get(partition, [])), default=0)
        if last != len(events):
            yield f"partition {partition}: the feed ends at {last}, the store at {len(events)}"


def offsets_within(evidence: Evidence) -> Iterator[str]:
    """Nothing counts as acknowledged that is not decided, neither in Kafka nor in the store."""
    for partition, committed in evidence.group.items():
        decided = evidence.checkpoints[partition].next_offset if partition in evidence.checkpoints else 0
        if committed > decided:
            yield f"partition {partition}: Kafka's committed offset {committed} is ahead of the store's {decided}"
    for partition, checkpoint in evidence.checkpoints.items():
        if checkpoint.acknowledged_offset > checkpoint.next_offset:
            yield f"partition {partition}: acknowledged up to offset {checkpoint.acknowledged_offset}, undecided"
        if checkpoint.acknowledged_position >= checkpoint.next_position:
            yield f"partition {partition}: acknowledged up to position {checkpoint.acknowledged_position}, unwritten"


def chains_hold(evidence: Evidence) -> Iterator[str]:
    """The hashes verify, and the log alone leads to the same ones."""
    yield from evidence.damage
    for partition, checkpoint in evidence.checkpoints.items():
        if evidence.rebuilt.get(partition, checkpoint.chain) != checkpoint.chain:
            yield f"partition {partition}: decided again from the log alone, the chain is another"


def no_lag(evidence: Evidence) -> Iterator[str]:
    """Everything in the log is decided and acknowledged."""
    for partition, end in evidence.ends.items():
        checkpoint = evidence.checkpoints.get(partition)
        decided = checkpoint.next_offset if checkpoint else 0
        if decided != end:
            yield f"partition {partition}: decided up to offset {decided} of {end}"
        if evidence.group.get(partition, 0) != end:
            yield f"partition {partition}: Kafka's committed offset is {evidence.group.get(partition, 0)} of {end}"


class _Seen(NamedTuple):
    """That a stream was at `version` at some time between two instants, an append's own included."""

    began_ns: int
    ended_ns: float
    version: int
    is_append: bool


def linearisable(evidence: Evidence) -> Iterator[str]:
    """Per stream there is one order of all appends and refusals that agrees with real time, each seeing those before.

    The store's versions are that order, so it is enough to look at all pairs of which one ended before the other began.
    """
    ids = {(event.stream, event.event_id): event.version for _, event in evidence.all_events()}
    by_command = {asked.command_id: asked for asked in evidence.commands.values() if asked.command_id is not None}
    seen: dict[str, list[_Seen]] = defaultdict(list)
    for operation in evidence.operations:
        ended_ns = operation.ended_ns if operation.ended_ns is not None else float("inf")
        first = operation.outcomes[0] if operation.outcomes else None
        asked = by_command.get(str(operation.command.command_id))
        last_id = asked.event_ids[-1] if asked else ""
        version = ids.get((operation.command.stream, last_id))
        if version is not None:
            seen[operation.command.stream].append(_Seen(operation.invoked_ns, ended_ns, version, is_append=True))
        elif isinstance(first, Conflict):
            at = first.actual_version
            seen[operation.command.stream].append(_Seen(operation.invoked_ns, ended_ns, at, is_append=False))
        elif isinstance(first, Accepted | Duplicate):
            yield f"{operation.command.stream}: an acknowledged append is not in the stream"
    for stream, found in seen.items():
        yield from _against_time(stream, found)


def _against_time(stream: str, found: list[_Seen]) -> Iterator[str]:
    """What began after something had ended must not have seen less; another append must have come behind it."""
    by_end = sorted(found, key=lambda one: one.ended_ns)
    ended: _Seen | None = None
    waiting = iter(by_end)
    next_ended = next(waiting, None)
    for one in sorted(found, key=lambda one: one.began_ns):
        while next_ended is not None and next_ended.ended_ns < one.began_ns:
            if ended is None or next_ended.version >= ended.version:
                ended = next_ended
            next_ended = next(waiting, None)
        if ended is not None and (one.version < ended.version or (one.is_append and one.version == ended.version)):
            what = "an append came to" if one.is_append else "a conflict saw"
            yield f"{stream}: {what} version {one.version} after version {ended.version} was known"


RULES: Mapping[str, Rule] = {
    rule.__name__: rule
    for rule in (
        gapless,
        one_winner,
        one_effect,
        one_verdict,
        accepted_is_stored,
        nothing_made_up,
        contents_are_kept,
        feed_in_order,
        offsets_within,
        chains_hold,
        no_lag,
        linearisable,
    )
}


def check(evidence: Evidence, without: Collection[str] = ()) -> list[str]:
    """Every breach, with the rule's name before it. `without` are rules that the run itself sets aside."""
    breaches = []
    for name, rule in RULES.items():
        if name not in without:
            found = [f"{name}: {text}" for text in rule(evidence)]
            breaches += found[:_MOST] + ([f"{name}: and {len(found) - _MOST} more"] if len(found) > _MOST else [])
    return breaches


def _place(outcome: Outcome) -> Place:
    return outcome.partition, outcome.offset


def _verdict(outcome: Outcome) -> object:
    """What has to be the same in all answers to one command, wherever in the log its copies are."""
    match outcome:
        case Accepted() | Duplicate():
            return outcome.stream, outcome.first_version, outcome.first_position, tuple(outcome.event_ids)
        case Conflict():
            return outcome.reason, outcome.expected_version, outcome.actual_version
        case Rejected():
            return outcome.reason
