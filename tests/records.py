"""Command records and what decisions leave behind, for tests that need no broker and no store."""

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from msgspec.structs import replace

from processor.chain import genesis
from processor.codec import NO_LIMITS, decode
from processor.decide import decide, recall
from processor.messages import (
    Checkpoint,
    Head,
    KnownEvent,
    Limits,
    Log,
    Outcome,
    Plan,
    Record,
    RecordedEvent,
    RefusedCommand,
    Rules,
    View,
)
from processor.partition import partition_of

STREAM = "order-42"
PARTITIONS = 4
LOG = Log("default", partition_of(STREAM.encode(), PARTITIONS))
RULES = Rules(partitions=PARTITIONS)


class SomeRecord(NamedTuple):
    """A Kafka record."""

    offset: int
    value: bytes | None
    key: bytes | None
    timestamp: int | None
    headers: Sequence[tuple[str, bytes]]


def event_id(number: int) -> str:
    """The same UUID for the same number."""
    return f"0199f2d4-9c1e-7b53-8a55-{number:012x}"


def event(number: int | None = None, **fields: Any) -> dict[str, Any]:
    """An event of a command, with the id of that number or without one."""
    named = {} if number is None else {"event_id": event_id(number)}
    return {"type": "OrderShipped", **named, **fields}


def command(*events: dict[str, Any], stream: str = STREAM, **fields: Any) -> dict[str, Any]:
    """A command, with one event that has no id where none is given."""
    return {"stream": stream, "events": list(events or (event(),)), **fields}


def record(
    offset: int,
    value: dict[str, Any] | bytes | None,
    *,
    key: str | None = STREAM,
    timestamp: int | None = 1_760_000_000_000,
    headers: Sequence[tuple[str, bytes]] = (),
) -> SomeRecord:
    """A command's record; a command that is given as a dict goes under its stream's name."""
    if isinstance(value, dict):
        key = value["stream"] if key == STREAM else key
        value = json.dumps(value).encode()
    return SomeRecord(offset, value, None if key is None else key.encode(), timestamp, headers)


class Past:
    """A log's state as a store would keep it, between decisions that each see only what was kept."""

    def __init__(self, rules: Rules = RULES, log: Log = LOG, limits: Limits | None = None) -> None:
        self.rules = rules
        self.log = log
        self.limits = limits or Limits()
        self.checkpoint = Checkpoint(epoch=1, next_offset=0, next_position=1, streams=0, chain=genesis(log))
        self.heads: dict[str, Head] = {}
        self.events: list[RecordedEvent] = []
        self.refused: list[RefusedCommand] = []

    def view(self) -> View:
        """All that is known, as it would be loaded."""
        return View(
            heads=dict(self.heads),
            known={(event.stream, event.event_id): KnownEvent.of(event) for event in self.events},
            refused={(it.stream, it.command_id): it for it in self.refused if it.stream and it.command_id},
            refused_at={it.offset: it for it in self.refused},
        )

    def plan(self, *records: Record) -> Plan:
        """Decide some records together, and keep what comes of it."""
        entries = [(record, decode(record.key, record.value, self.limits)) for record in records]
        plan = decide(self.rules, self.log, self.checkpoint, self.view(), entries, records[-1].offset + 1)
        self.checkpoint = plan.after
        self.heads |= plan.heads
        self.events += plan.events
        self.refused += plan.refused
        return plan

    def decide(self, *records: Record) -> list[Outcome]:
        """The outcomes of records that are decided together."""
        return [outcome for _, outcome in self.plan(*records).answers]

    def decide_one(self, record: Record) -> Outcome:
        """The outcome of a record that is decided alone."""
        return self.decide(record)[0]

    def recall(self, records: Iterable[Record]) -> list[Outcome]:
        """The outcomes of records that are decided already."""
        view = self.view()
        return [
            recall(self.log, self.checkpoint.incarnation, view, record, decode(record.key, record.value, NO_LIMITS))
            for record in records
        ]

    def start_anew(self) -> None:
        """A new log for the same store, as an operator starts it: offsets count from 0 again."""
        self.checkpoint = replace(
            self.checkpoint, next_offset=0, last_offset=-1, last_digest=b"", incarnation=self.checkpoint.incarnation + 1
        )
        self.refused = []
