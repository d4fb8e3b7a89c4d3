"""Bytes to messages and back: the JSON of a command record, of a reply, and the headers of an event on the feed.

What `decode` takes for a `Command` is what `schemas/command.schema.json` accepts, within the limits; a test holds the
two together.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import UNSET, Raw, UnsetType

from processor.messages import (
    MAX_SCHEMA_VERSION,
    MAX_VERSION,
    Command,
    Decoded,
    Limits,
    Log,
    NewEvent,
    Outcome,
    RecordedEvent,
    Unfit,
    Unreadable,
)

NO_LIMITS = Limits(record_bytes=2**40, events=2**40, depth=10_000, name_bytes=2**40)

_command = msgspec.json.Decoder(Command)
_anything = msgspec.json.Decoder()
_raw_parts = msgspec.json.Decoder(dict[str, Raw])
_raw_events = msgspec.json.Decoder(list[Raw])
_outcome = msgspec.json.Decoder(Outcome)
_encoder = msgspec.json.Encoder()

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")
# What CloudEvents and Kafka headers can't carry as text, and PostgreSQL not as a name.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)


def decode(key: bytes | None, value: bytes | None, limits: Limits) -> Decoded:
    """Read the value of a command record. Never raises: what can't be used is a value that says why."""
    if value is None:
        return Unreadable("The record has no value (a tombstone); a command is a JSON object.")
    size = len(value) + len(key or b"")
    if size > limits.record_bytes:
        detail = f"The record has {size} bytes; at most {limits.record_bytes} are allowed."
        return Unfit(None, UNSET, detail, None)
    if (value.count(b"{") + value.count(b"[")) > limits.depth and _depth(value) > limits.depth:
        return Unfit(None, UNSET, f"The JSON is nested more than {limits.depth} levels deep.", None)
    try:
        if not value.isascii():
            value.decode()
        command = _command.decode(value)
    except msgspec.ValidationError:
        return _explain(value, limits)
    except UnicodeDecodeError as error:
        return Unreadable(f"Not UTF-8: byte {error.object[error.start]:#04x} at {error.start}.")
    except (msgspec.DecodeError, RecursionError) as error:
        return Unreadable(f"Not JSON: {error}.")
    return _checked(command, limits)


def encode_outcome(outcome: Outcome) -> bytes:
    """An outcome as JSON, as `schemas/outcome.schema.json` has it."""
    return _encoder.encode(outcome)


def decode_outcome(text: bytes) -> Outcome:
    """The reverse of `encode_outcome`. Raises `msgspec.DecodeError`."""
    return _outcome.decode(text)


def event_headers(log: Log, event: RecordedEvent) -> list[tuple[str, bytes]]:
    """The headers of an event on the feed: CloudEvents 1.0 in Kafka's binary content mode."""
    stream = event.stream.encode()
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", event.event_id.encode()),
        ("ce_source", f"/tidemark/{quote(log.tenant, safe='')}/{quote(stream, safe='')}".encode()),
        ("ce_type", event.type.encode()),
        ("ce_subject", stream),
        ("ce_time", rfc3339(event.time_ms).encode()),
        ("content-type", b"application/json"),
        ("ce_streamversion", b"%d" % event.version),
        ("ce_position", b"%d" % event.position),
        ("ce_schemaversion", b"%d" % event.schema_version),
        ("ce_tenant", log.tenant.encode()),
    ]
    if event.correlation_id is not None:
        headers.append(("ce_correlationid", event.correlation_id.encode()))
    if event.causation_id is not None:
        headers.append(("ce_causationid", event.causation_id.encode()))
    if event.command_id is not None:
        headers.append(("ce_commandid", event.command_id.encode()))
    if event.metadata:
        headers.append(("ce_metadata", event.metadata))
    if event.traceparent is not None:
        headers.append(("traceparent", event.traceparent.encode()))
    return headers


def rfc3339(time_ms: int) -> str:
    """Milliseconds since 1970 as RFC 3339 in UTC, to the millisecond."""
    seconds, rest = divmod(time_ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:03d}Z"


# --- checks


def _depth(value: bytes) -> int:
    deepest = depth = 0
    for match in _BRACKETS.finditer(value):
        first = match[0][:1]
        if first in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif first in b"]}":
            depth -= 1
    return deepest


def _checked(command: Command, limits: Limits) -> Command | Unfit:
    """What the types can't say: names without control characters, ids that are UUIDs, metadata that is an object."""
    for flaw in _flaws(command):
        return Unfit(command.stream, command.command_id, _too_large(command, limits), flaw)
    too_large = _too_large(command, limits)
    if too_large is not None:
        return Unfit(command.stream, command.command_id, too_large, None)
    return command


def _names(command: Command) -> Iterator[tuple[str, str]]:
    yield "stream", command.stream
    for event in command.events:
        yield "an event's type", event.type
    if command.command_id is not UNSET:
        yield "command_id", command.command_id
    if command.correlation_id is not UNSET:
        yield "correlation_id", command.correlation_id
    if command.causation_id is not UNSET:
        yield "causation_id", command.causation_id


def _too_large(command: Command, limits: Limits) -> str | None:
    if len(command.events) > limits.events:
        return f"The command has {len(command.events)} events; at most {limits.events} are allowed."
    for what, name in _names(command):
        if len(name) * 4 > limits.name_bytes and (size := len(name.encode())) > limits.name_bytes:
            return f"{_capital(what)} has {size} bytes; at most {limits.name_bytes} are allowed."
    return None


def _flaws(command: Command) -> Iterator[str]:
    if not command.events:
        yield "events is empty; a command has at least one."
    for what, name in _names(command):
        if not name:
            yield f"{_capital(what)} is empty."
        elif not name.isprintable() and _CONTROL.search(name):
            yield f"{_capital(what)} has a control character."
    for index, event in enumerate(command.events):
        if event.event_id is not UNSET and not _UUID.match(event.event_id):
            yield f"events[{index}].event_id is not a UUID."
        if memoryview(event.metadata)[:1] != b"{":
            yield f"events[{index}].metadata is not an object."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


# --- what the types refused, told apart and told in words; off the fast path

_COMMAND_FIELDS = {"stream", "expected_version", "events", "command_id", "correlation_id", "causation_id"}
_EVENT_FIELDS = {"event_id", "type", "schema_version", "data", "metadata"}


def _explain(value: bytes, limits: Limits) -> Decoded:
    """JSON that is not of the types: not a command at all, or one with flaws, or one that writes 3 as 3.0."""
    document = _anything.decode(value)
    missing = _not_a_command(document)
    if missing is not None:
        return Unreadable(f"Not a command: {missing}.")
    text_id = document.get("command_id")
    command_id = text_id if isinstance(text_id, str) and text_id else UNSET
    flaw = next(_type_flaws(document), None)
    if flaw is None:
        return _checked(_lenient(value), limits)
    return Unfit(document["stream"], command_id, _too_large(_shell(document, command_id), limits), flaw)


def _not_a_command(document: Any) -> str | None:
    if not isinstance(document, dict):
        return "it is not a JSON object"
    if not isinstance(document.get("stream"), str):
        return "stream is missing or not a string"
    events = document.get("events")
    if not isinstance(events, list) or not all(isinstance(event, dict) for event in events):
        return "events is missing or not an array of objects"
    for index, event in enumerate(events):
        if "type" not in event:
            return f"events[{index}].type is missing"
    return None


def _type_flaws(document: dict[str, Any]) -> Iterator[str]:
    for name in (name for name in document if name not in _COMMAND_FIELDS):
        yield f"Unknown field {name!r}."
    for name in ("command_id", "correlation_id", "causation_id"):
        if name in document and not isinstance(document[name], str):
            yield f"{name} is not a string."
    expected = document.get("expected_version", "any")
    if expected not in ("any", "no_stream", "stream_exists") and not _is_whole(expected, 0, MAX_VERSION):
        yield 'expected_version is not a whole number from 0 to 2^63 - 1, nor "any", "no_stream" or "stream_exists".'
    for index, event in enumerate(document["events"]):
        for name in (name for name in event if name not in _EVENT_FIELDS):
            yield f"Unknown field {name!r} in events[{index}]."
        if not isinstance(event["type"], str):
            yield f"events[{index}].type is not a string."
        if not isinstance(event.get("event_id", ""), str):
            yield f"events[{index}].event_id is not a UUID."
        if not _is_whole(event.get("schema_version", 1), 1, MAX_SCHEMA_VERSION):
            yield f"events[{index}].schema_version is not a whole number from 1 to {MAX_SCHEMA_VERSION}."


def _is_whole(value: Any, lowest: int, highest: int) -> bool:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return isinstance(value, int) and not isinstance(value, bool) and lowest <= value <= highest


def _lenient(value: bytes) -> Command:
    """The command in a document without flaws, whole numbers spelt as they like (3.0, 3e0)."""
    parts = _raw_parts.decode(value)
    events = [_raw_parts.decode(event) for event in _raw_events.decode(parts.pop("events"))]
    return Command(
        events=[
            NewEvent(
                data=event.pop("data", Raw(b"{}")),
                metadata=event.pop("metadata", Raw(b"{}")),
                **{name: _plain(part) for name, part in event.items()},
            )
            for event in events
        ],
        **{name: _plain(part) for name, part in parts.items()},
    )


def _plain(part: Raw) -> Any:
    value = _anything.decode(part)
    return int(value) if isinstance(value, float) else value


def _shell(document: dict[str, Any], command_id: str | UnsetType) -> Command:
    """As much of a flawed document as has a size to look at."""
    types = [event["type"] if isinstance(event["type"], str) else "" for event in document["events"]]
    return Command(document["stream"], [NewEvent(name) for name in types], command_id=command_id)
