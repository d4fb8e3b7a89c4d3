"""The schemas say what the code does.

Held together here: `codec.decode` makes a `Command` of a text of JSON, within the limits, exactly where
`schemas/command.schema.json` accepts what the text says. What the text says is read with exact numbers; a text with a
lone surrogate is no JSON. That no event id is in a command twice is left to the decision on both sides.
"""

import json
import shutil
import subprocess
import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import jsonschema_rs
import msgspec
import pytest
from aiokafka import ConsumerRecord
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary
from cloudevents.core.formats.json import JSONFormat
from hypothesis import example, given, settings
from hypothesis import strategies as st

from processor.cli.reading import feed_json, recorded_json
from processor.codec import decode, encode_outcome, event_headers
from processor.kafka.reading import FeedEvent, event_of
from processor.messages import Command, Limits, Log, Outcome, RecordedEvent, Rules, Unfit, Unreadable
from processor.names import TopicNames
from tests.records import Past, SomeRecord, event_id
from tests.servers import cache_folder

SCHEMAS = Path(__file__).parents[1] / "schemas"
KINDS = ["command", "event", "outcome"]
PARSER = "3.6.3"


@cache
def schema(kind: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(SCHEMAS.joinpath(f"{kind}.schema.json").read_text(encoding="utf-8"))
    return document


@cache
def validator(kind: str) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(schema(kind))


def exact(text: str) -> int | float:
    """A whole number exactly, whatever its spelling; any other is as good as a half, as the schemas only ask that."""
    number = Decimal(text)
    return int(number) if number == number.to_integral_value() else 0.5


def said(text: bytes) -> Any:
    return json.loads(text, parse_float=exact)


def examples(valid: str) -> list[Any]:
    paths = sorted(SCHEMAS.glob(f"examples/*/{valid}/*.json"))
    return [pytest.param(path.parts[-3], path, id=f"{path.parts[-3]}-{path.stem}") for path in paths]


# --- the schemas themselves


@pytest.mark.parametrize("kind", KINDS)
def test_a_schema_is_valid_json_schema_2020_12(kind: str) -> None:
    assert schema(kind)["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema_rs.meta.validate(schema(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_a_schema_has_a_name_of_its_own_a_title_a_description_and_examples(kind: str) -> None:
    assert schema(kind)["$id"] == f"urn:tidemark:schema:{kind}"
    assert schema(kind)["title"]
    assert schema(kind)["description"]
    assert all(validator(kind).is_valid(shown) for shown in schema(kind)["examples"])
    assert schema(kind)["examples"]


@pytest.mark.parametrize(("kind", "path"), examples("valid"))
def test_a_valid_example_is_valid(kind: str, path: Path) -> None:
    validator(kind).validate(said(path.read_bytes()))


@pytest.mark.parametrize(("kind", "path"), examples("invalid"))
def test_an_invalid_example_is_not(kind: str, path: Path) -> None:
    assert not validator(kind).is_valid(said(path.read_bytes()))


def test_every_schema_has_both_kinds_of_examples() -> None:
    for valid in ("valid", "invalid"):
        assert {parameter.values[0] for parameter in examples(valid)} == set(KINDS)


# --- commands


def accepts(text: bytes) -> bool:
    return isinstance(decode(b"key", text, Limits(name_bytes=10_000, depth=200)), Command)


@pytest.mark.parametrize("path", sorted(SCHEMAS.glob("examples/command/*/*.json")), ids=lambda path: str(path.stem))
def test_the_codec_accepts_the_examples_that_the_schema_accepts(path: Path) -> None:
    assert accepts(path.read_bytes()) == (path.parent.name == "valid")


class Spelt(str):
    """A number that is to be written just so."""

    __slots__ = ()


def written(value: Any) -> bytes:
    """The value as JSON, with `Spelt` numbers as they are spelt."""
    marked: list[str] = []

    def mark(value: Any) -> Any:
        if isinstance(value, Spelt):
            marked.append(value)
            return f"\0{len(marked) - 1}\0"
        if isinstance(value, dict):
            return {name: mark(item) for name, item in value.items()}
        return [mark(item) for item in value] if isinstance(value, list) else value

    text = json.dumps(mark(value))
    for index, spelling in enumerate(marked):
        text = text.replace(f'"\\u0000{index}\\u0000"', spelling)
    return text.encode()


odd_names = st.sampled_from(
    ["", "\0", "a\nb", "\x7f", "\x80", "\x9f", "\u00a0", "\u2028", "\ufeff", "\ufffe", "😀", "é" * 200, " ", "a b"]
) | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
ODD_NUMBERS = """
    0 -0 1 1.0 1e0 10e-1 0.5 -1 -1.0 1e2 1e19 1e25 1E400 -1e400 1e-400
    2147483647 2147483647.0 2147483648 9007199254740993.0 123456789012345678901234567890
    9223372036854775807 9223372036854775807.0 9223372036854775808 9223372036854775808.0 18446744073709551616
"""
odd_numbers = st.sampled_from([Spelt(number) for number in ODD_NUMBERS.split()])
odd_ids = st.sampled_from(
    [
        event_id(1),
        event_id(10).upper(),
        event_id(1).replace("-", ""),
        event_id(1) + "\n",
        " " + event_id(1),
        event_id(1)[:-1],
        event_id(1)[:-1] + "g",
        "{" + event_id(1) + "}",
        "urn:uuid:" + event_id(1),
        event_id(1)[:-1] + "٣",
    ]
)
odd_values: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from([None, True, False, "any", "no_stream", "stream_exists", "ANY", [], {}, [[]], [{}], {"a": 1}])
    | odd_numbers
    | odd_names
    | odd_ids,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(odd_names, inner, max_size=2),
    max_leaves=3,
)
names = st.sampled_from(["order-42", "é"])
whole_events = st.fixed_dictionaries(
    {"type": names},
    optional={
        "event_id": st.sampled_from([event_id(1), event_id(2), event_id(10).upper()]),
        "schema_version": st.integers(1, 9),
        "data": odd_values,
        "metadata": st.dictionaries(odd_names, odd_values, max_size=2),
    },
)
whole_commands = st.fixed_dictionaries(
    {"stream": names, "events": st.lists(whole_events, min_size=1, max_size=3)},
    optional={
        "expected_version": st.sampled_from(["any", "no_stream", "stream_exists", 0, 3]),
        "command_id": names,
        "correlation_id": names,
        "causation_id": names,
    },
)
FIELDS = ["stream", "events", "expected_version", "command_id", "correlation_id", "causation_id"]
EVENT_FIELDS = ["type", "event_id", "schema_version", "data", "metadata"]
TYPOS = ["Stream", "eventId", "type ", "", "events\0"]


@st.composite
def mutated_commands(draw: st.DrawFn) -> Any:
    """A whole command with up to three fields taken away, or given another value, or added."""
    document = draw(whole_commands)
    for _ in range(draw(st.integers(0, 3))):
        events = document.get("events")
        inner = [event for event in events if isinstance(event, dict)] if isinstance(events, list) else []
        target, fields = draw(st.sampled_from([(document, FIELDS), *((event, EVENT_FIELDS) for event in inner)]))
        field = draw(st.sampled_from([*fields, *fields, *TYPOS]))
        if draw(st.booleans()):
            target.pop(field, None)
        else:
            target[field] = draw(odd_values)
    return document


@given(mutated_commands())
@settings(max_examples=1000)
@example({"stream": "a", "events": [{"type": "T"}], "expected_version": Spelt("9223372036854775807.0")})
@example({"stream": "a", "events": [{"type": "T", "schema_version": Spelt("1e0"), "metadata": []}]})
@example({"stream": "a", "events": [{"type": "T", "event_id": event_id(1)}] * 2})
def test_the_codec_accepts_what_the_schema_accepts(document: Any) -> None:
    text = written(document)
    assert accepts(text) == validator("command").is_valid(said(text))


@given(odd_values)
def test_the_codec_accepts_no_other_json_than_the_schema(document: Any) -> None:
    text = written(document)
    assert not accepts(text)
    assert not validator("command").is_valid(said(text))


@given(mutated_commands())
def test_what_lacks_the_shape_of_a_command_is_unreadable_and_other_flaws_are_told(document: dict[str, Any]) -> None:
    text = written(document)
    events = document.get("events")
    shaped = (
        isinstance(document.get("stream"), str)
        and not isinstance(document["stream"], Spelt)
        and isinstance(events, list)
        and all(isinstance(event, dict) and "type" in event for event in events)
    )
    decoded = decode(b"key", text, Limits(name_bytes=10_000))
    assert isinstance(decoded, Command | Unfit if shaped else Unreadable)


def test_the_schema_leaves_no_field_of_a_command_out() -> None:
    assert list(schema("command")["properties"]) == [
        "stream", "expected_version", "events", "command_id", "correlation_id", "causation_id",
    ]  # fmt: skip
    assert set(schema("command")["properties"]) == set(Command.__struct_fields__)


# --- outcomes and events

ONE_PARTITION = Log("default", 0)
TRACEPARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def decided(documents: list[Any]) -> tuple[list[Outcome], list[RecordedEvent]]:
    """The outcomes and events of some texts, each sent twice, with and without a command that is refused between."""
    past = Past(rules=Rules(partitions=1), log=ONE_PARTITION, limits=Limits(name_bytes=300))
    outcomes: list[Outcome] = []
    for document in documents * 2:
        text = written(document)
        stream = document.get("stream") if isinstance(document, dict) else None
        key = stream.encode() if isinstance(stream, str) else b"order-42"
        sent = SomeRecord(len(outcomes), text, key, 1_760_000_000_000, [("traceparent", TRACEPARENT)])
        outcomes += past.decide(sent)
    return outcomes, past.events


def shown_fields(of: dict[str, Any], kind: str) -> set[str]:
    """All fields that a schema, or the definitions that it refers to, knows."""
    fields = set(of.get("properties", {}))
    for part in of.get("allOf", []):
        fields |= shown_fields(schema(kind)["$defs"][part["$ref"].rpartition("/")[2]], kind)
    return fields


@given(st.lists(mutated_commands() | odd_values, min_size=1, max_size=6))
def test_every_outcome_is_as_the_schema_says(documents: list[Any]) -> None:
    for outcome in decided(documents)[0]:
        shown = json.loads(encode_outcome(outcome))
        validator("outcome").validate(shown)
        assert shown.keys() <= shown_fields(schema("outcome")["$defs"][shown["outcome"]], "outcome")


def from_feed(stored: RecordedEvent) -> FeedEvent:
    headers = tuple(event_headers(ONE_PARTITION, stored))
    sizes = -1, -1
    return event_of(ConsumerRecord("feed", 0, 0, stored.time_ms, 0, b"", stored.data, None, *sizes, headers))


@given(st.lists(whole_commands, min_size=1, max_size=4))
def test_every_event_is_printed_as_the_schema_says(documents: list[Any]) -> None:
    for stored in decided(documents)[1]:
        line = msgspec.json.encode(recorded_json(ONE_PARTITION, stored))
        assert b"\n" not in line
        validator("event").validate(said(line))
        assert said(line).keys() <= shown_fields(schema("event"), "event")
        seen = said(msgspec.json.encode(feed_json(from_feed(stored))))
        validator("event").validate(seen)
        assert seen == {name: value for name, value in said(line).items() if name not in {"offset", "hash"}}


@given(st.lists(whole_commands, min_size=1, max_size=4))
def test_every_event_on_the_feed_is_a_cloudevent(documents: list[Any]) -> None:
    for stored in decided(documents)[1]:
        headers = dict(event_headers(Log("acme", 0), stored))
        seen = from_binary(KafkaMessage(headers, stored.stream.encode(), stored.data), JSONFormat())
        assert seen.get_specversion() == "1.0"
        assert seen.get_id() == stored.event_id
        assert unquote(seen.get_source()) == f"/tidemark/acme/{stored.stream}"
        assert seen.get_type() == stored.type
        assert seen.get_subject() == stored.stream
        assert seen.get_time() == datetime.fromtimestamp(stored.time_ms / 1000, UTC)
        assert seen.get_datacontenttype() == "application/json"
        assert seen.get_data() == json.loads(stored.data)
        extensions = {
            "streamversion": str(stored.version),
            "position": str(stored.position),
            "schemaversion": str(stored.schema_version),
            "tenant": "acme",
            "commandid": stored.command_id,
            "correlationid": stored.correlation_id,
            "causationid": stored.causation_id,
        }
        assert {name: seen.get_extension(name) for name in extensions} == extensions
        metadata = seen.get_extension("metadata")
        assert json.loads(metadata or "{}") == json.loads(stored.metadata or b"{}")


# --- AsyncAPI


@pytest.fixture(scope="module")
def asyncapi() -> dict[str, Any]:
    """The AsyncAPI document as the official parser reads it, references put in; brought once, by npm."""
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("needs node and npm for the AsyncAPI parser")
    home = cache_folder(f"asyncapi-parser-{PARSER}")
    if not home.exists():
        with tempfile.TemporaryDirectory(dir=home.parent) as folder:
            install = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", f"@asyncapi/parser@{PARSER}"]
            brought = subprocess.run(
                [*install, "--prefix", f"{folder}/new"], check=False, capture_output=True, text=True, timeout=300
            )
            if brought.returncode:
                pytest.skip("npm could not bring the AsyncAPI parser")
            with suppress(OSError):
                Path(folder, "new").rename(home)
    script = ["node", str(Path(__file__).with_name("asyncapi.mjs")), str(SCHEMAS / "asyncapi.yaml")]
    done = subprocess.run(script, cwd=home, check=True, capture_output=True, text=True, timeout=60)
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["problems"] == []
    document: dict[str, Any] = found["document"]
    return document


def test_the_asyncapi_document_names_the_topics(asyncapi: dict[str, Any]) -> None:
    addresses = [channel["address"] for channel in asyncapi["channels"].values() if channel["address"]]
    assert addresses == list(TopicNames.of("tidemark.", "default").all())


def test_the_asyncapi_document_has_the_schemas_as_payloads(asyncapi: dict[str, Any]) -> None:
    messages = asyncapi["components"]["messages"]
    assert messages["command"]["payload"]["$id"] == schema("command")["$id"]
    outcomes = {name: messages[name]["payload"]["title"] for name in ("accepted", "duplicate", "conflict", "rejected")}
    assert outcomes == {name: schema("outcome")["$defs"][name]["title"] for name in outcomes}


def test_the_asyncapi_document_describes_the_headers_of_the_feed(asyncapi: dict[str, Any]) -> None:
    described = jsonschema_rs.validator_for(asyncapi["components"]["schemas"]["eventHeaders"])
    traced = [("traceparent", TRACEPARENT)]
    told = {"type": "T", "metadata": {"a": 1}}
    texts = (
        b'{"stream":"order/42","events":[{"type":"T"}]}',
        written(
            {"stream": "order/42", "command_id": "c", "correlation_id": "k", "causation_id": "a", "events": [told]}
        ),
    )
    past = Past(rules=Rules(partitions=1), log=ONE_PARTITION)
    past.decide(*(SomeRecord(n, text, b"order/42", 0, traced * n) for n, text in enumerate(texts)))
    least, most = ({name: value.decode() for name, value in event_headers(past.log, it)} for it in past.events)
    described.validate(least)
    described.validate(most)
    assert set(least) == set(asyncapi["components"]["schemas"]["eventHeaders"]["required"])
    assert set(most) == set(asyncapi["components"]["schemas"]["eventHeaders"]["properties"])
