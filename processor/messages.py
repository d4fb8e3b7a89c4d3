"""The values that travel the pipeline, one type for each station.

A `Command` asks; `decide` answers with one `Outcome` and, where it accepts, with `RecordedEvent`s. What is
before the decision (`NewEvent`) and what is after it (`RecordedEvent`) are different types, so that neither can be
taken for the other. This module imports nothing of the project.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from operator import attrgetter
from typing import Annotated, Literal, NamedTuple, Protocol, Self

from msgspec import UNSET, Meta, Raw, Struct, UnsetType, field

MAX_VERSION = 2**63 - 1
MAX_SCHEMA_VERSION = 2**31 - 1
COMMON_BYTES = 256
"""Up to this size commands count by their number, above it by their bytes."""

_VALUE = attrgetter("value")


class Log(NamedTuple):
    """One partition of one tenant's commands topic: the unit of order, ownership, positions and chain."""

    tenant: str
    partition: int

    def __str__(self) -> str:
        return f"{self.tenant}/{self.partition}"


class Record(Protocol):
    """A Kafka record, as far as the pipeline looks at one (what aiokafka reads is one)."""

    @property
    def offset(self) -> int:
        """Its number within the log."""
        ...

    @property
    def timestamp(self) -> int | None:
        """In milliseconds since 1970; below 0 or None where the record carries none."""
        ...

    @property
    def key(self) -> bytes | None:
        """The stream's name, if the client does it right."""
        ...

    @property
    def value(self) -> bytes | None:
        """The command's JSON, if the client does it right."""
        ...

    @property
    def headers(self) -> Sequence[tuple[str, bytes]]:
        """In the order sent; a name may occur twice."""
        ...


class Slice(Struct, frozen=True, dict=True):
    """A run of a log's records without a hole: all there is from offset `begin` up to, not including, `end`.

    `seek` numbers the seek after which it was fetched; slices of an earlier one are void.
    """

    log: Log
    seek: int
    begin: int
    end: int
    records: Sequence[Record]

    @cached_property
    def weight(self) -> int:
        """What it takes to hold and to decide it, in commands of a common size: large ones count as several."""
        value_bytes = sum(map(len, filter(None, map(_VALUE, self.records))))
        return max(len(self.records), value_bytes // COMMON_BYTES)


# --- commands

_ExactVersion = Annotated[int, Meta(ge=0, le=MAX_VERSION)]
ExpectedVersion = _ExactVersion | Literal["any", "no_stream", "stream_exists"]


NO_METADATA = Raw(b"{}")


class NewEvent(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """An event as a client asks for it. `data` and `metadata` are JSON text, as it came."""

    type: str
    event_id: str | UnsetType = UNSET
    schema_version: Annotated[int, Meta(ge=1, le=MAX_SCHEMA_VERSION)] = 1
    data: Raw = Raw(b"{}")
    metadata: Raw = NO_METADATA


class Command(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """A request to append `events` to `stream`, all or none."""

    stream: str
    events: list[NewEvent]
    expected_version: ExpectedVersion = "any"
    command_id: str | UnsetType = UNSET
    correlation_id: str | UnsetType = UNSET
    causation_id: str | UnsetType = UNSET


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """What a command may measure at the most; beyond it, it is `too_large` (`codec`).

    record_bytes: of the record's key and value; depth: of JSON arrays and objects within each other; name_bytes: of the
    UTF-8 of a stream, an event type, a command id, a correlation id, a causation id.
    """

    record_bytes: int = 1_000_000
    events: int = 1_000
    depth: int = 64
    name_bytes: int = 255


class Rules(Struct, frozen=True):
    """The settings that take part in decisions: the store is a function of the log, of these and of `Limits`.

    retention_ms: for how long, in the log's time, a refusal is remembered by its command id.
    """

    partitions: int
    retention_ms: int = 7 * 24 * 3600 * 1000


class Unreadable(Struct, frozen=True, gc=False):
    """A record's value that is not a command at all."""

    detail: str


class Unfit(Struct, frozen=True, gc=False):
    """A record's value that can be read as a command, but not be accepted as one.

    `stream` is None where the value was too large to be parsed. `too_large` and `invalid` are sentences for a
    person; at least one of them is there.
    """

    stream: str | None
    command_id: str | UnsetType
    too_large: str | None
    invalid: str | None


Decoded = Command | Unfit | Unreadable


# --- events


class RecordedEvent(Struct, frozen=True, gc=False):
    """An event as it stands in the store, for ever.

    `version` counts within the stream, `position` within the log, both from 1. `offset` is that of the command in its
    log, `time_ms` the command record's timestamp. `data` is the JSON text as it came, `metadata` likewise, or empty
    where there was none. `hash` covers all the fields and the hash of the event before it (`chain`).
    """

    stream: str
    version: int
    position: int
    event_id: str
    type: str
    schema_version: int
    data: bytes
    metadata: bytes
    time_ms: int
    offset: int
    command_id: str | None
    correlation_id: str | None
    causation_id: str | None
    traceparent: str | None
    hash: bytes


class KnownEvent(Struct, frozen=True, gc=False):
    """What there has to be known of a recorded event to tell whether it is sent again, and to answer that."""

    version: int
    position: int
    type: str
    schema_version: int
    data: bytes
    metadata: bytes
    offset: int

    @classmethod
    def of(cls, event: RecordedEvent) -> Self:
        """What there has to be known of this one."""
        return cls(
            event.version, event.position, event.type, event.schema_version, event.data, event.metadata, event.offset
        )


# --- outcomes

Reason = Literal[
    "malformed",
    "wrong_key",
    "wrong_partition",
    "too_large",
    "invalid",
    "command_id_reused",
    "event_id_reused",
    "partial_duplicate",
    "wrong_expected_version",
]


class _Outcome(Struct, frozen=True, kw_only=True, tag_field="outcome", omit_defaults=True, gc=False):
    """What every outcome says. Fields that do not apply are left out of the JSON."""

    tenant: str
    partition: int
    offset: int
    command_id: str | UnsetType = UNSET
    reply_refused: bool = False


class _Appended(_Outcome, frozen=True, kw_only=True, gc=False):
    stream: str
    first_version: int
    last_version: int
    first_position: int
    last_position: int
    event_ids: list[str]


class Accepted(_Appended, frozen=True, tag="accepted", gc=False):
    """The events were appended, by this command."""


class Duplicate(_Appended, frozen=True, tag="duplicate", gc=False):
    """The events were in the stream before, where the versions and positions say."""


class _Refusal(_Outcome, frozen=True, kw_only=True, gc=False):
    stream: str | UnsetType = UNSET
    reason: Reason
    detail: str
    replayed: bool = False


class Conflict(_Refusal, frozen=True, kw_only=True, tag="conflict", gc=False):
    """The stream was not at the expected version; `actual_version` is 0 where there was no stream."""

    expected_version: ExpectedVersion
    actual_version: int


class Rejected(_Refusal, frozen=True, kw_only=True, tag="rejected", gc=False):
    """The command can't be carried out, now or later, as it stands."""


Refusal = Conflict | Rejected
Outcome = Accepted | Duplicate | Conflict | Rejected


class RefusedCommand(Struct, frozen=True, gc=False):
    """A refusal as the store remembers it: for the same answer to the same offset, and for rows 6 and 7.

    `stream` and `command_id` are None, and `content` empty, where the refusal is not to be remembered by command id.
    `log_time_ms` is the log's time at the decision, from which retention counts. Where an operator has started a new
    log for the store, `outcome` may be a `Duplicate`: one whose offset is that of its events in the log before.
    """

    offset: int
    stream: str | None
    command_id: str | None
    content: bytes
    log_time_ms: int
    outcome: Outcome


# --- the state of a log


class Checkpoint(Struct, frozen=True):
    """Where a log stands in the store. Written in the same transaction as what it speaks of.

    epoch: counts the owners; a transaction of an older epoch fails.
    next_offset: the first command offset that is not decided.
    next_position: the first position that is not taken; the watermark is the one before.
    streams: how many streams the log has; their numbers are 1 to this.
    chain: the hash of the last event (`chain.genesis` before the first).
    log_time_ms: the highest record timestamp decided so far, the log's clock.
    last_offset, last_digest: the last decided record and its fingerprint, to tell this log from another (-1, empty).
    acknowledged_offset, acknowledged_position: up to where replies and feed are known to be on the broker (exclusive
    offset, inclusive position).
    incarnation: which log this is, counted from 0, where an operator has started a new one for an old store.
    """

    epoch: int
    next_offset: int
    next_position: int
    streams: int
    chain: bytes
    log_time_ms: int = 0
    last_offset: int = -1
    last_digest: bytes = b""
    acknowledged_offset: int = 0
    acknowledged_position: int = 0
    incarnation: int = 0


class Head(Struct, frozen=True, gc=False):
    """A stream's number within its log, and its version."""

    number: int
    version: int


class View(Struct):
    """What `decide` has to know of a log's past, and nothing else. It folds every decision into it.

    A `Decider` folds its events into `known` when they are asked for: see `remember`.

    heads: by stream name; a name that was asked for and is missing has no stream.
    known: by (stream, event id); an id that was asked for and is missing is new.
    refused: by (stream, command id).
    refused_at: by command offset, for offsets that are decided already.
    presumed_new: the offsets of commands whose event ids were not asked for.
    asked: the event ids that were asked for, in whatever stream; of other events nothing is folded into `known`. None
    where all are.
    """

    heads: dict[str, Head]
    known: dict[tuple[str, str], KnownEvent]
    refused: dict[tuple[str, str], RefusedCommand]
    refused_at: dict[int, RefusedCommand]
    presumed_new: set[int] = field(default_factory=set)
    asked: set[str] | None = None

    @classmethod
    def empty(cls) -> "View":
        """A view of a log without a past."""
        return cls({}, {}, {}, {})


class Wanted(Struct):
    """What to load into a `View`.

    Event ids by stream name (its head comes with them), refusals by (stream, command id) and by offset. `heads` are
    those that are known already; they may be left out of the view.
    """

    event_ids: dict[str, list[str]]
    commands: list[tuple[str, str]]
    offsets: list[int]
    heads: Mapping[str, Head] = {}

    @classmethod
    def nothing(cls) -> Self:
        """No question."""
        return cls({}, [], [])

    @property
    def is_something(self) -> bool:
        """Whether there is anything to ask."""
        return bool(self.event_ids or self.commands or self.offsets)


class Publication(Struct, gc=False):
    """What of a decided, committed run of commands has to be published, in this order, before the next one.

    `next_offset` and `last_position` are how far replies and feed are acknowledged once it is out. `weight` is that of
    its slice.
    """

    events: list[RecordedEvent]
    answers: list[tuple[Record, Outcome]]
    next_offset: int
    last_position: int
    weight: int


class Plan(Struct):
    """What one decision of many commands of one log comes to: to be committed whole, then published.

    `heads` are the streams' heads after it, for the streams that it changed, new streams included; those are the ones
    with a number above `before.streams`. `answers` has one outcome per decided record, in order.
    """

    log: Log
    before: Checkpoint
    after: Checkpoint
    heads: dict[str, Head]
    events: list[RecordedEvent]
    refused: list[RefusedCommand]
    answers: list[tuple[Record, Outcome]]
