"""The decision table: what a command comes to. Pure; every rule of `docs/contract.md` stands here and nowhere else.

The first row that applies decides:

     1  not JSON, or not a command                          rejected  malformed
     2  the key is not the stream's name                    rejected  wrong_key
     3  the partition is not the stream's                   rejected  wrong_partition
     4  over a limit                                        rejected  too_large
     5  an event id twice, a wrong type, out of range       rejected  invalid
     6  this command id was refused, same content           as before, replayed
     7  this command id was refused, other content          rejected  command_id_reused
     8  all ids known, adjacent, in order, same content     duplicate
     9  all ids known, otherwise                            rejected  event_id_reused
    10  some ids known, some new                            rejected  partial_duplicate
    11  the expected version does not hold                  conflict  wrong_expected_version
    12  otherwise                                           accepted

Rows 1 to 5 look at the record alone; their refusals are given again by deciding again. Rows 9 to 11 depend on what the
stream was at that moment, so their refusals are remembered by command id, for rows 6 and 7.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import sha1
from typing import assert_never
from uuid import UUID

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from processor.chain import fingerprint, recorded
from processor.content import command_content, same_content
from processor.errors import Misfit
from processor.messages import (
    Accepted,
    Checkpoint,
    Command,
    Conflict,
    Decoded,
    Duplicate,
    ExpectedVersion,
    Head,
    KnownEvent,
    Log,
    NewEvent,
    Outcome,
    Plan,
    Reason,
    Record,
    RecordedEvent,
    Refusal,
    RefusedCommand,
    Rejected,
    Rules,
    Unreadable,
    View,
)
from processor.partition import partition_of

# UUIDv5 of the DNS name "events.tidemark" in the DNS namespace; fixed for ever, derived ids depend on it.
_ID_NAMESPACE = UUID("5e867e96-86a0-5411-9558-ce1f80e8059c").bytes
_LAST_TIME_MS = 253_402_300_799_999  # the end of the year 9999; what is later is no timestamp
_NO_STREAM = Head(0, 0)
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class Unread(Exception):  # noqa: N818 - not a fault: the caller reads what is missing and decides again
    """A command that was presumed to be new may not be: its event ids have to be known."""


def decide(
    rules: Rules, log: Log, before: Checkpoint, view: View, entries: Iterable[tuple[Record, Decoded]], next_offset: int
) -> Plan:
    """Decide the records of one log, in order, each seeing the effect of those before it.

    `view` holds all that the entries' `Wanted` names, save what `presumed_new` excuses, and is brought up to date.
    `next_offset` is where the log goes on after them. Raises `Unread`.
    """
    decider = Decider(rules, log, before, view)
    decider.decide(entries)
    decider.remember()
    return decider.plan(next_offset)


def recall(log: Log, incarnation: int, view: View, record: Record, decoded: Decoded) -> Outcome:
    """The outcome that an offset which is decided already was given. `decoded` is read without limits."""
    written = view.refused_at.get(record.offset)
    if written is not None:
        return written.outcome
    if isinstance(decoded, Command):
        ids = event_ids(log, incarnation, record, decoded)
        stored = [event for event_id in ids if (event := view.known.get((decoded.stream, event_id)))]
        if len(stored) == len(ids):
            kind = Accepted if stored[0].offset == record.offset else Duplicate
            return _appended(kind, log, record, decoded, ids, stored)
    raise Misfit(
        f"the store has decided offset {record.offset} of {log}, but knows no answer to the command that is there"
    )


def learn(view: View, events: list[RecordedEvent]) -> None:
    """Fold events into what the view knows, so far as they were asked for."""
    known, asked = view.known, view.asked
    for event in events:
        if asked is None or event.event_id in asked:
            known[event.stream, event.event_id] = KnownEvent.of(event)


def event_ids(log: Log, incarnation: int, record: Record, command: Command) -> list[str]:
    """The ids of a command's events, derived where they were left out (UUIDv5)."""
    ids: list[str] = []
    for index, event in enumerate(command.events):
        if event.event_id is not UNSET:
            ids.append(event.event_id.lower())
        elif command.command_id is not UNSET:
            ids.append(_uuid5(f"command:{command.command_id}:{index}"))
        else:
            name = f"offset:{log.tenant}:{log.partition}:{record.offset}:{index}"
            ids.append(_uuid5(f"{name}:{incarnation}" if incarnation else name))
    return ids


def _uuid5(name: str) -> str:
    return str(UUID(bytes=sha1(_ID_NAMESPACE + name.encode(), usedforsecurity=False).digest()[:16], version=5))


def _traceparent(record: Record) -> str | None:
    for name, value in record.headers:
        if name == "traceparent":
            return value.decode() if value and _TRACEPARENT.fullmatch(value) else None
    return None


def _holds(expected: ExpectedVersion, actual: int) -> bool:
    match expected:
        case int():
            return actual == expected
        case "any":
            return True
        case "no_stream":
            return actual == 0
        case "stream_exists":
            return actual > 0
        case _:
            assert_never(expected)


def _appended(
    kind: type[Accepted | Duplicate],
    log: Log,
    record: Record,
    command: Command,
    ids: list[str],
    events: Sequence[RecordedEvent] | Sequence[KnownEvent],
) -> Accepted | Duplicate:
    first, last = events[0], events[-1]
    return kind(
        tenant=log.tenant,
        partition=log.partition,
        offset=record.offset,
        command_id=command.command_id,
        stream=command.stream,
        first_version=first.version,
        last_version=last.version,
        first_position=first.position,
        last_position=last.position,
        event_ids=ids,
    )


class Decider:
    """The fold: one log, from one checkpoint on, `decide`d some records at a time."""

    def __init__(self, rules: Rules, log: Log, before: Checkpoint, view: View) -> None:
        self.rules = rules
        self.log = log
        self.before = before
        self.view = view
        self.incarnation = before.incarnation
        self.next_position = before.next_position
        self.streams = before.streams
        self.chain = before.chain
        self.log_time_ms = before.log_time_ms
        self.changed: dict[str, Head] = {}
        self.events: list[RecordedEvent] = []
        self.remembered = 0
        self.refused: list[RefusedCommand] = []
        self.answers: list[tuple[Record, Outcome]] = []

    def decide(self, entries: Iterable[tuple[Record, Decoded]]) -> None:
        """Decide the records that come next. Raises `Unread`: what was decided before is of no use then."""
        self.answers += [(record, self._decide(record, decoded)) for record, decoded in entries]

    def plan(self, next_offset: int) -> Plan:
        """What all that was decided comes to; the log goes on at `next_offset`."""
        before, answers = self.before, self.answers
        last = answers[-1][0] if answers else None
        after = replace(
            before,
            next_offset=next_offset,
            next_position=self.next_position,
            streams=self.streams,
            chain=self.chain,
            log_time_ms=self.log_time_ms,
            last_offset=last.offset if last else before.last_offset,
            last_digest=fingerprint(last) if last else before.last_digest,
        )
        return Plan(self.log, before, after, self.changed, self.events, self.refused, answers)

    def _decide(self, record: Record, decoded: Decoded) -> Outcome:
        timestamp = record.timestamp
        if timestamp is None or not 0 <= timestamp <= _LAST_TIME_MS:
            timestamp = self.log_time_ms
        elif timestamp > self.log_time_ms:
            self.log_time_ms = timestamp
        outcome = self._by_record(record, decoded)
        if isinstance(outcome, Command):
            return self._by_state(record, outcome, timestamp)
        self._remember(outcome)
        return outcome

    # --- rows 1 to 5

    def _by_record(self, record: Record, decoded: Decoded) -> Command | Rejected:
        if isinstance(decoded, Unreadable):
            return self._reject(record, "malformed", decoded.detail)
        stream, command_id = decoded.stream, decoded.command_id
        if stream is not None:
            flaw = self._misplaced(record.key, stream)
            if flaw is not None:
                return self._reject(record, *flaw, stream, command_id)
        if isinstance(decoded, Command):
            return decoded
        if decoded.too_large is not None:
            return self._reject(record, "too_large", decoded.too_large, stream, command_id)
        return self._reject(record, "invalid", decoded.invalid or "", stream, command_id)

    def _misplaced(self, key: bytes | None, stream: str) -> tuple[Reason, str] | None:
        name = stream.encode()
        if key != name:
            shown = "there is no key" if key is None else f"the key is {key[:80].decode(errors='replace')!r}"
            return "wrong_key", f"The record's key must be the stream's name, in UTF-8; {shown}."
        # What is a stream of this log was found to be in its place when it began.
        if stream in self.view.heads:
            return None
        partition = partition_of(name, self.rules.partitions)
        if partition != self.log.partition:
            return "wrong_partition", (
                f"The stream belongs to partition {partition} of {self.rules.partitions}, not {self.log.partition}: "
                "use Kafka's default partitioner, murmur2 of the key (librdkafka: partitioner=murmur2_random)."
            )
        return None

    # --- rows 6 to 12

    def _by_state(self, record: Record, command: Command, time_ms: int) -> Outcome:
        ids = event_ids(self.log, self.incarnation, record, command)
        if len(ids) > 1 and len(set(ids)) < len(ids):
            outcome = self._reject_twice(record, command, ids)
            self._remember(outcome)
            return outcome
        before = self._refused_before(record, command)
        if before is not None:
            self._remember(before)
            return before
        if record.offset in self.view.presumed_new:
            if not self._holds(command):
                raise Unread
        else:
            stored = self._stored(command, ids)
            refusal = self._refuse(record, command, stored)
            if refusal is not None:
                self._remember(refusal, command)
                return refusal
            if stored:
                return self._duplicate(record, command, ids, stored)
        return _appended(Accepted, self.log, record, command, ids, self._append(record, command, ids, time_ms))

    def _stored(self, command: Command, ids: list[str]) -> list[KnownEvent]:
        """The events that have these ids already, in the order of the ids."""
        self.remember()
        known = self.view.known
        return [known[key] for event_id in ids if (key := (command.stream, event_id)) in known]

    def remember(self) -> None:
        """Bring the view's known events up to date, which no command that is presumed to be new asks for."""
        learn(self.view, self.events[self.remembered :])
        self.remembered = len(self.events)

    def _duplicate(self, record: Record, command: Command, ids: list[str], stored: list[KnownEvent]) -> Outcome:
        outcome = _appended(Duplicate, self.log, record, command, ids, stored)
        if stored[0].offset == record.offset:
            # An operator has started a new log, and offsets count from 0 again: `recall` would take this for the
            # command that wrote the events.
            self._remember(outcome)
        return outcome

    def _refused_before(self, record: Record, command: Command) -> Outcome | None:
        if command.command_id is UNSET or not self.view.refused:
            return None
        refused = self.view.refused.get((command.stream, command.command_id))
        if refused is None or self.log_time_ms - refused.log_time_ms > self.rules.retention_ms:
            return None
        if refused.content == command_content(command):
            return replace(refused.outcome, offset=record.offset, replayed=True)
        return self._reject(
            record,
            "command_id_reused",
            f"This command id was refused at offset {refused.offset}, with other content: a changed command takes a "
            "new id.",
            command.stream,
            command.command_id,
        )

    def _refuse(self, record: Record, command: Command, stored: list[KnownEvent]) -> Refusal | None:
        """Rows 9 to 11; None where the command is a duplicate, of the events in `stored`, or can be accepted."""
        if stored and len(stored) < len(command.events):
            detail = (
                f"{len(stored)} of the {len(command.events)} event ids are in the stream already, the first at version "
                f"{stored[0].version}."
            )
            return self._reject(record, "partial_duplicate", detail, command.stream, command.command_id)
        if stored:
            if _is_repeat(command.events, stored):
                return None
            detail = (
                f"The event ids are in the stream already, from version {stored[0].version} on, with other content or "
                "in another order."
            )
            return self._reject(record, "event_id_reused", detail, command.stream, command.command_id)
        if self._holds(command):
            return None
        actual = self.view.heads.get(command.stream, _NO_STREAM).version
        return Conflict(
            tenant=self.log.tenant,
            partition=self.log.partition,
            offset=record.offset,
            command_id=command.command_id,
            stream=command.stream,
            reason="wrong_expected_version",
            detail=f"Expected version {command.expected_version}, but "
            + (f"the stream is at version {actual}." if actual else "there is no such stream."),
            expected_version=command.expected_version,
            actual_version=actual,
        )

    def _holds(self, command: Command) -> bool:
        head = self.view.heads.get(command.stream, _NO_STREAM)
        return command.expected_version == head.version or _holds(command.expected_version, head.version)

    def _append(self, record: Record, command: Command, ids: list[str], time_ms: int) -> list[RecordedEvent]:
        stream = command.stream
        head = self.view.heads.get(stream)
        if head is None:
            self.streams += 1
            head = Head(self.streams, 0)
        events = recorded(
            self.chain, command, ids, head.version, self.next_position, time_ms, record.offset,
            _traceparent(record) if record.headers else None,
        )  # fmt: skip
        self.events += events
        self.next_position += len(events)
        self.chain = events[-1].hash
        self.view.heads[stream] = self.changed[stream] = Head(head.number, events[-1].version)
        return events

    # --- refusals

    def _reject_twice(self, record: Record, command: Command, ids: list[str]) -> Rejected:
        twice = Counter(ids).most_common(1)[0][0]
        detail = f"The event id {twice} is in the command twice."
        return self._reject(record, "invalid", detail, command.stream, command.command_id)

    def _reject(
        self,
        record: Record,
        reason: Reason,
        detail: str,
        stream: str | None = None,
        command_id: str | UnsetType = UNSET,
    ) -> Rejected:
        return Rejected(
            tenant=self.log.tenant,
            partition=self.log.partition,
            offset=record.offset,
            command_id=command_id,
            stream=UNSET if stream is None else stream,
            reason=reason,
            detail=detail,
        )

    def _remember(self, outcome: Outcome, command: Command | None = None) -> None:
        """Keep an answer for its offset and, where it is one of rows 9 to 11, for its command id."""
        by_id = command is not None and command.command_id is not UNSET
        refused = RefusedCommand(
            offset=outcome.offset,
            stream=command.stream if command and by_id else None,
            command_id=command.command_id or None if command and by_id else None,
            content=command_content(command) if command and by_id else b"",
            log_time_ms=self.log_time_ms,
            outcome=outcome,
        )
        self.refused.append(refused)
        if refused.stream is not None and refused.command_id is not None:
            self.view.refused[refused.stream, refused.command_id] = refused


def _is_repeat(events: Sequence[NewEvent], stored: Sequence[KnownEvent]) -> bool:
    version = stored[0].version
    for new, there in zip(events, stored, strict=True):
        if there.version != version or not same_content(new, there):
            return False
        version += 1
    return True
