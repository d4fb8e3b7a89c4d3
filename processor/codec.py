"""Bytes to messages and back: the JSON of a command record, of a reply, and the headers of an event on the feed.

What `decode` takes for a `Command` is what `schemas/command.schema.json` accepts, within the limits; a test holds the
two together.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import lru_cache
from itertools import accumulate
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import UNSET, Raw

from processor.content import spelt
from processor.messages import (
    MAX_SCHEMA_VERSION,
    MAX_VERSION,
    NO_METADATA,
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

Header = tuple[str, bytes]
SharedHeaders = tuple[Header, Header, Header, Header, list[Header], list[Header]]
"""Source, subject, time, tenant, the ids that are there, and the trace context if it is."""

NO_LIMITS = Limits(record_bytes=2**40, events=2**40, depth=10_000, name_bytes=2**40)

_command = msgspec.json.Decoder(Command)
_any_json = msgspec.json.Decoder(Raw)
_members = msgspec.json.Decoder(dict[str, Raw])
_items = msgspec.json.Decoder(list[Raw])
_string = msgspec.json.Decoder(str)
_outcome: msgspec.json.Decoder[Outcome] = msgspec.json.Decoder(Outcome)
_encoder = msgspec.json.Encoder()

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")
# What CloudEvents and Kafka headers can't carry as text, and PostgreSQL not as a name.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# The closing quote may be missing, so that a text which is not JSON is scanned once, not once for each quote in it.
_STRINGS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_OPEN, _CLOSE = b"[{", b"]}"
_NOT_BRACKETS = bytes(set(range(256)) - set(_OPEN + _CLOSE))
# Of control characters, these are white space between JSON's tokens, and those may stand in its strings.
_ON_ONE_LINE = {ord(c): " " for c in "\t\n\r"} | {c: f"\\u{c:04x}" for c in range(0x7F, 0xA0)}


def decode_in_full(key: bytes | None, value: bytes | None, limits: Limits) -> Decoded:
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
        try:
            command = _command.decode(value)
        except msgspec.ValidationError:
            return _explain(value, limits)
    except UnicodeDecodeError as error:
        return Unreadable(f"Not UTF-8: byte {error.object[error.start]:#04x} at {error.start}.")
    except (msgspec.DecodeError, RecursionError) as error:
        return Unreadable(f"Not JSON: {error}.")
    return _checked(command, limits)


decode: Callable[[bytes | None, bytes | None, Limits], Decoded]
try:
    from processor._codec import Decoder
except ImportError:
    decode = decode_in_full
else:
    decode = Decoder(_command.decode, decode_in_full)
"""What `decode_in_full` says, sooner where a glance is enough."""


def encode_outcome(outcome: Outcome) -> bytes:
    """An outcome as JSON, as `schemas/outcome.schema.json` has it."""
    return _encoder.encode(outcome)


def decode_outcome(text: bytes) -> Outcome:
    """The reverse of `encode_outcome`. Raises `msgspec.DecodeError`."""
    return _outcome.decode(text)


def event_headers(log: Log, event: RecordedEvent, shared: SharedHeaders | None = None) -> list[Header]:
    """The headers of an event on the feed: CloudEvents 1.0 in Kafka's binary content mode.

    `shared`: what `shared_headers` says of the event's command, where that is known already.
    """
    source, subject, time, tenant, ids, trace = shared or shared_headers(log, event)
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", event.event_id.encode()),
        source,
        ("ce_type", event.type.encode()),
        subject,
        time,
        ("content-type", b"application/json"),
        ("ce_streamversion", b"%d" % event.version),
        ("ce_position", b"%d" % event.position),
        ("ce_schemaversion", b"%d" % event.schema_version),
        tenant,
    ]
    headers += ids
    if event.metadata:
        headers.append(("ce_metadata", on_one_line(event.metadata)))
    headers += trace
    return headers


def shared_headers(log: Log, event: RecordedEvent) -> SharedHeaders:
    """What all events of a command have in common on the feed; of the events of two commands, nothing need be."""
    ids: list[Header] = []
    if event.correlation_id is not None:
        ids.append(("ce_correlationid", event.correlation_id.encode()))
    if event.causation_id is not None:
        ids.append(("ce_causationid", event.causation_id.encode()))
    if event.command_id is not None:
        ids.append(("ce_commandid", event.command_id.encode()))
    return (
        ("ce_source", event_source(log.tenant, event.stream)),
        ("ce_subject", event.stream.encode()),
        ("ce_time", rfc3339(event.time_ms).encode()),
        ("ce_tenant", log.tenant.encode()),
        ids,
        [("traceparent", event.traceparent.encode())] if event.traceparent is not None else [],
    )


def rfc3339(time_ms: int) -> str:
    """Milliseconds since 1970 as RFC 3339 in UTC, to the millisecond."""
    seconds, rest = divmod(time_ms, 1000)
    return f"{_to_the_second(seconds)}.{rest:03d}Z"


@lru_cache(maxsize=1024)
def _to_the_second(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


@lru_cache(maxsize=16_384)
def event_source(tenant: str, stream: str) -> bytes:
    """What `ce_source` says: a path of the names."""
    return f"/tidemark/{quote(tenant, safe='')}/{quote(stream, safe='')}".encode()


def on_one_line(text: bytes) -> bytes:
    """The same JSON, without control characters."""
    shown = text.decode()
    return text if shown.isprintable() else shown.translate(_ON_ONE_LINE).encode()


# --- checks


def _depth(value: bytes) -> int:
    brackets = _STRINGS.sub(b"", value).translate(None, _NOT_BRACKETS)
    return max(accumulate(1 if bracket in _OPEN else -1 for bracket in brackets), default=0)


def _checked(command: Command, limits: Limits) -> Command | Unfit:
    """What the types can't say: names without control characters, ids that are UUIDs, metadata that is an object."""
    if _is_plain(command, limits):
        return command
    names = _names(command)
    flaw = _flaw(command, names)
    too_large = _too_large(len(command.events), names, limits)
    if flaw is None and too_large is None:
        return command
    return Unfit(command.stream, command.command_id, too_large, flaw)


def _is_plain(command: Command, limits: Limits) -> bool:
    """Whether a glance is enough to see that nothing is wrong with it, as it nearly always is."""
    most = limits.name_bytes // 4
    for name in (command.stream, command.command_id, command.correlation_id, command.causation_id):
        if name is not UNSET and not (0 < len(name) <= most and name.isprintable()):
            return False
    for event in command.events:
        if not (0 < len(event.type) <= most and event.type.isprintable()):
            return False
        if event.metadata is not NO_METADATA and not bytes(event.metadata).startswith(b"{"):
            return False
        if event.event_id is not UNSET and not _UUID.match(event.event_id):
            return False
    return 0 < len(command.events) <= limits.events


def _names(command: Command) -> list[tuple[str, str]]:
    names = [("stream", command.stream)]
    names += [("an event's type", event.type) for event in command.events]
    if command.command_id is not UNSET:
        names.append(("command_id", command.command_id))
    if command.correlation_id is not UNSET:
        names.append(("correlation_id", command.correlation_id))
    if command.causation_id is not UNSET:
        names.append(("causation_id", command.causation_id))
    return names


def _too_large(events: int, names: Iterable[tuple[str, str]], limits: Limits) -> str | None:
    if events > limits.events:
        return f"The command has {events} events; at most {limits.events} are allowed."
    for what, name in names:
        if len(name) * 4 > limits.name_bytes and (size := len(name.encode())) > limits.name_bytes:
            return f"{_capital(what)} has {size} bytes; at most {limits.name_bytes} are allowed."
    return None


def _flaw(command: Command, names: Iterable[tuple[str, str]]) -> str | None:
    if not command.events:
        return "events is empty; a command has at least one."
    for what, name in names:
        if not name:
            return f"{_capital(what)} is empty."
        if not name.isprintable() and _CONTROL.search(name):
            return f"{_capital(what)} has a control character."
    for index, event in enumerate(command.events):
        if event.event_id is not UNSET and not _UUID.match(event.event_id):
            return f"events[{index}].event_id is not a UUID."
        if not bytes(event.metadata).startswith(b"{"):
            return f"events[{index}].metadata is not an object."
    return None


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


# --- what the types refused, told apart and told in words; off the fast path

_TEXTS = ("command_id", "correlation_id", "causation_id")
_COMMAND_FIELDS = {"stream", "expected_version", "events", *_TEXTS}
_EVENT_FIELDS = {"event_id", "type", "schema_version", "data", "metadata"}
_KEPT_RAW = {"events", "data", "metadata"}
_EXPECTED_WORDS = ("any", "no_stream", "stream_exists")


def _explain(value: bytes, limits: Limits) -> Decoded:
    """JSON that is not of the types: not a command at all, or one with flaws, or one that writes 3 as 3.0.

    Raises `msgspec.DecodeError` where what comes after the place that the types refused is not JSON.
    """
    document = _plain_members(_any_json.decode(value))
    if document is None:
        return Unreadable("Not a command: it is not a JSON object.")
    if not isinstance(document.get("stream"), str):
        return Unreadable("Not a command: stream is missing or not a string.")
    events = _plain_events(document.get("events"))
    if events is None:
        return Unreadable("Not a command: events is missing or not an array of objects.")
    for index, event in enumerate(events):
        if "type" not in event:
            return Unreadable(f"Not a command: events[{index}].type is missing.")
    document["events"] = events
    flaw = next(_type_flaws(document), None)
    if flaw is None:
        return _checked(Command(**document | {"events": [NewEvent(**event) for event in events]}), limits)
    texts = [("stream", document["stream"])]
    texts += [("an event's type", event["type"]) for event in events if isinstance(event["type"], str)]
    texts += [(name, document[name]) for name in _TEXTS if isinstance(document.get(name), str)]
    command_id = document.get("command_id")
    return Unfit(
        document["stream"],
        command_id if isinstance(command_id, str) else UNSET,
        _too_large(len(events), texts, limits),
        flaw,
    )


def _plain_members(text: Raw) -> dict[str, Any] | None:
    """An object's members: strings and whole numbers as such, payloads as JSON, None for what else there is."""
    if not bytes(text).startswith(b"{"):
        return None
    return {name: part if name in _KEPT_RAW else _plain(part) for name, part in _members.decode(text).items()}


def _plain_events(text: Raw | None) -> list[dict[str, Any]] | None:
    if text is None or not bytes(text).startswith(b"["):
        return None
    events = [_plain_members(item) for item in _items.decode(text)]
    return None if None in events else [event for event in events if event is not None]


def _plain(part: Raw) -> str | int | None:
    text = bytes(part)
    if text.startswith(b'"'):
        return _string.decode(text)
    return _whole(text.decode()) if text[0] in b"-0123456789" else None


def _whole(text: str) -> int | None:
    """The whole number, however it is written, exactly; None where it is none, or one far out of any range."""
    digits, _, power = spelt(text).partition("e")
    if len(digits) > 20 or len(power) > 2:
        return None
    return int(digits) * 10 ** int(power or "0") if not power.startswith("-") else None


def _type_flaws(document: dict[str, Any]) -> Iterator[str]:
    for name in (name for name in document if name not in _COMMAND_FIELDS):
        yield f"Unknown field {_clipped(name)}."
    for name in _TEXTS:
        if not isinstance(document.get(name, ""), str):
            yield f"{name} is not a string."
    expected = document.get("expected_version", "any")
    if expected not in _EXPECTED_WORDS and not _is_whole(expected, 0, MAX_VERSION):
        yield 'expected_version is not a whole number from 0 to 2^63 - 1, nor "any", "no_stream" or "stream_exists".'
    for index, event in enumerate(document["events"]):
        for name in (name for name in event if name not in _EVENT_FIELDS):
            yield f"Unknown field {_clipped(name)} in events[{index}]."
        if not isinstance(event["type"], str):
            yield f"events[{index}].type is not a string."
        if not isinstance(event.get("event_id", ""), str):
            yield f"events[{index}].event_id is not a UUID."
        if not _is_whole(event.get("schema_version", 1), 1, MAX_SCHEMA_VERSION):
            yield f"events[{index}].schema_version is not a whole number from 1 to {MAX_SCHEMA_VERSION}."


def _is_whole(value: Any, lowest: int, highest: int) -> bool:
    return isinstance(value, int) and lowest <= value <= highest


def _clipped(name: str) -> str:
    # A name may be as long as the record: the reply that quotes it has to fit into one, too.
    return repr(name if len(name) <= 60 else name[:60] + "…")
