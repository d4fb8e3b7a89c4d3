"""When two pieces of JSON say the same: key order, white space and the way a number is written do not count."""

import json
from hashlib import sha256

from msgspec import UNSET

from processor.messages import NO_METADATA, Command, KnownEvent, NewEvent


def spelt(text: str) -> str:
    """One spelling for each JSON number: significant digits and a power of ten, exact, whatever its size."""
    mantissa, _, exponent = text.lower().partition("e")
    sign = "-" if mantissa.startswith("-") else ""
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    digits = (whole + fraction).lstrip("0")
    if not digits:
        return "0"
    significant = digits.rstrip("0")
    try:
        power = int(exponent or "0") - len(fraction) + len(digits) - len(significant)
    except ValueError:  # an exponent of thousands of digits: only the same spelling is the same number
        return text
    return f"{sign}{significant}e{power}"


def _tagged_number(text: str) -> dict[str, str]:
    # A one-entry object under an impossible key: no JSON text can spell it, so no number equals a string or object.
    return {_NUMBER_KEY: spelt(text)}


# A lone surrogate can't come out of a text that was UTF-8 and had its escapes checked.
_NUMBER_KEY = "\udc00number"
_reader = json.JSONDecoder(parse_int=_tagged_number, parse_float=_tagged_number)
_writer = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def canonical(text: bytes) -> str:
    """One spelling for each JSON value. `text` has been checked to be JSON."""
    return "{}" if text == b"{}" else _writer.encode(_reader.decode(text.decode()))


def _same_json(one: bytes, other: bytes) -> bool:
    return one == other or canonical(one) == canonical(other)


def metadata_or_empty(event: NewEvent) -> bytes:
    """The metadata as it is stored: an empty object, however it was written, is no metadata."""
    if event.metadata is NO_METADATA:
        return b""
    text = bytes(event.metadata)
    return b"" if text[1:-1].strip() == b"" else text


def same_content(new: NewEvent, known: KnownEvent) -> bool:
    """Whether an event that is sent again has the content that is stored: type, schema version, data and metadata."""
    return (
        new.type == known.type
        and new.schema_version == known.schema_version
        and _same_json(bytes(new.data), known.data)
        and _same_json(bytes(new.metadata), known.metadata or b"{}")
    )


def command_content(command: Command) -> bytes:
    """SHA-256 of what makes a command with this id the same command: its events and the expected version."""
    events = [
        [
            None if event.event_id is UNSET else event.event_id.lower(),
            event.type,
            event.schema_version,
            canonical(bytes(event.data)),
            canonical(bytes(event.metadata)),
        ]
        for event in command.events
    ]
    return sha256(json.dumps([command.expected_version, events]).encode()).digest()
