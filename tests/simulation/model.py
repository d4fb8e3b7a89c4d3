"""What a log must lead to, in plain dicts: the contract's decision table once more, one command after the other.

Shares no code with `decide`; knows only what the simulation's clients send.
"""

import json
from typing import Any, NamedTuple
from uuid import UUID, uuid5

from processor.messages import Log
from processor.partition import partition_of
from tests.records import SomeRecord

_NAMESPACE = UUID("5e867e96-86a0-5411-9558-ce1f80e8059c")
_COMMAND_FIELDS = {"stream", "expected_version", "events", "command_id"}


class Verdict(NamedTuple):
    """An outcome, as far as the model says it; `versions` and `positions` are first and last."""

    outcome: str
    reason: str = ""
    versions: tuple[int, int] = (0, 0)
    positions: tuple[int, int] = (0, 0)
    replayed: bool = False


class Entry(NamedTuple):
    """An event of a stream."""

    event_id: str
    content: Any
    position: int


class Model:
    """One log."""

    def __init__(self, log: Log, partitions: int, events_at_most: int, retention_ms: int) -> None:
        self.streams: dict[str, list[Entry]] = {}
        self._log = log
        self._partitions = partitions
        self._events_at_most = events_at_most
        self._retention_ms = retention_ms
        self._position = 0
        self._now_ms = 0
        self._refused: dict[tuple[str, str], tuple[int, Any, Verdict]] = {}

    def decide(self, record: SomeRecord) -> Verdict:
        """Decide the next record of the log."""
        if record.timestamp is not None and record.timestamp > self._now_ms:
            self._now_ms = record.timestamp
        try:
            command = json.loads(record.value or b"")
            events = command["events"]
            stream = command["stream"]
        except (ValueError, KeyError, TypeError):
            return Verdict("rejected", "malformed")
        flaw = self._flaw(record, stream, command, events)
        if flaw:
            return Verdict("rejected", flaw)
        ids = [self._id_of(record, command, index) for index in range(len(events))]
        if len(set(ids)) < len(ids):
            return Verdict("rejected", "invalid")
        return self._by_state(command, stream, ids, [_content(event) for event in events])

    def _flaw(self, record: SomeRecord, stream: str, command: dict[str, Any], events: list[dict[str, Any]]) -> str:
        if record.key != stream.encode():
            return "wrong_key"
        if partition_of(stream.encode(), self._partitions) != self._log.partition:
            return "wrong_partition"
        if len(events) > self._events_at_most:
            return "too_large"
        if not events or set(command) - _COMMAND_FIELDS:
            return "invalid"
        return ""

    def _id_of(self, record: SomeRecord, command: dict[str, Any], index: int) -> str:
        given = command["events"][index].get("event_id")
        if given is not None:
            return str(given)
        if "command_id" in command:
            return str(uuid5(_NAMESPACE, f"command:{command['command_id']}:{index}"))
        return str(uuid5(_NAMESPACE, f"offset:{self._log.tenant}:{self._log.partition}:{record.offset}:{index}"))

    def _by_state(self, command: dict[str, Any], stream: str, ids: list[str], contents: list[Any]) -> Verdict:
        command_id = command.get("command_id")
        expected = command.get("expected_version", "any")
        asked = expected, list(zip([event.get("event_id") for event in command["events"]], contents, strict=True))
        before = self._refused.get((stream, command_id)) if command_id is not None else None
        if before is not None and self._now_ms - before[0] <= self._retention_ms:
            return before[2]._replace(replayed=True) if before[1] == asked else Verdict("rejected", "command_id_reused")
        verdict = self._refuse(stream, expected, ids, contents)
        if verdict is None:
            return self._accept(stream, ids, contents)
        if command_id is not None and verdict.outcome != "duplicate":
            self._refused[stream, command_id] = self._now_ms, asked, verdict
        return verdict

    def _refuse(self, stream: str, expected: int | str, ids: list[str], contents: list[Any]) -> Verdict | None:
        there = self.streams.get(stream, [])
        places = [index for event_id in ids for index, entry in enumerate(there) if entry.event_id == event_id]
        if places and len(places) < len(ids):
            return Verdict("rejected", "partial_duplicate")
        if places:
            begin, end = places[0], places[0] + len(ids)
            if [(entry.event_id, entry.content) for entry in there[begin:end]] != list(zip(ids, contents, strict=True)):
                return Verdict("rejected", "event_id_reused")
            return Verdict("duplicate", "", (begin + 1, end), (there[begin].position, there[end - 1].position))
        holds = {"any": True, "no_stream": not there, "stream_exists": bool(there)}.get(
            str(expected), expected == len(there)
        )
        return None if holds else Verdict("conflict", "wrong_expected_version")

    def _accept(self, stream: str, ids: list[str], contents: list[Any]) -> Verdict:
        there = self.streams.setdefault(stream, [])
        version, position = len(there) + 1, self._position + 1
        for event_id, content in zip(ids, contents, strict=True):
            self._position += 1
            there.append(Entry(event_id, content, self._position))
        return Verdict("accepted", "", (version, len(there)), (position, self._position))


def _content(event: dict[str, Any]) -> Any:
    return event["type"], event.get("schema_version", 1), event.get("data", {}), event.get("metadata", {})
