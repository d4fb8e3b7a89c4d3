"""What the codec makes of any bytes, and how outcomes and events are written."""

import json
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET
from msgspec.structs import replace

from processor.codec import (
    NO_LIMITS,
    decode,
    decode_outcome,
    encode_outcome,
    event_headers,
    rfc3339,
)
from processor.messages import (
    Command,
    Conflict,
    Duplicate,
    Limits,
    Log,
    RecordedEvent,
    Rejected,
    Unfit,
    Unreadable,
)
from tests.records import STREAM, Past, command, event, event_id, record

LIMITS = Limits()


def text(document: Any) -> bytes:
    return json.dumps(document).encode()


def read(value: bytes | dict[str, Any] | None, limits: Limits = LIMITS) -> Command | Unfit | Unreadable:
    return decode(STREAM.encode(), text(value) if isinstance(value, dict) else value, limits)


def as_command(value: bytes | dict[str, Any], limits: Limits = LIMITS) -> Command:
    decoded = read(value, limits)
    assert isinstance(decoded, Command), decoded
    return decoded


def why_unreadable(value: bytes | dict[str, Any] | None) -> str:
    decoded = read(value)
    assert isinstance(decoded, Unreadable), decoded
    return decoded.detail


def why_invalid(value: bytes | dict[str, Any]) -> str:
    decoded = read(value)
    assert isinstance(decoded, Unfit), decoded
    assert decoded.too_large is None
    assert decoded.invalid is not None
    return decoded.invalid


def why_too_large(value: bytes | dict[str, Any], limits: Limits = LIMITS) -> str:
    decoded = read(value, limits)
    assert isinstance(decoded, Unfit), decoded
    assert decoded.too_large is not None
    return decoded.too_large


def with_event(fields: bytes) -> bytes:
    return b'{"stream":"order-42","events":[{"type":"T",%b}]}' % fields


# --- what is a command


def test_all_fields_are_read() -> None:
    document = command(
        event(1, schema_version=2, data=[1], metadata={"user": "u-7"}),
        expected_version=3,
        command_id="c-1",
        correlation_id="k-1",
        causation_id="a-1",
    )
    read = as_command(document)
    assert (read.stream, read.expected_version, read.command_id) == (STREAM, 3, "c-1")
    assert (read.correlation_id, read.causation_id) == ("k-1", "a-1")
    (new,) = read.events
    assert (new.event_id, new.type, new.schema_version) == (event_id(1), "OrderShipped", 2)
    assert (bytes(new.data), bytes(new.metadata)) == (b"[1]", b'{"user": "u-7"}')


def test_what_is_left_out_takes_its_default() -> None:
    read = as_command(command())
    assert (read.expected_version, read.command_id, read.correlation_id) == ("any", UNSET, UNSET)
    (new,) = read.events
    assert (new.event_id, new.schema_version) == (UNSET, 1)
    assert (bytes(new.data), bytes(new.metadata)) == (b"{}", b"{}")


@pytest.mark.parametrize(
    "data", ["null", "0", '""', "[]", "true", "1e400", "9" * 5000, '"\\u0000"', '"\\ud83d\\ude00"']
)
def test_data_is_any_json_value(data: str) -> None:
    assert bytes(as_command(with_event(b'"data":' + data.encode())).events[0].data) == data.encode()


@pytest.mark.parametrize(
    ("spelt", "number"),
    [
        ("3.0", 3),
        ("3e0", 3),
        ("0.3E1", 3),
        ("30e-1", 3),
        ("-0", 0),
        ("-0.0", 0),
        ("0e99", 0),
        ("9007199254740993.0", 9007199254740993),
        ("9223372036854775807", 2**63 - 1),
        ("9223372036854775807.000", 2**63 - 1),
    ],
)
def test_a_whole_number_may_be_spelt_in_any_way(spelt: str, number: int) -> None:
    value = b'{"expected_version":%b,"stream":"order-42","events":[{"type":"T"}]}' % spelt.encode()
    assert as_command(value).expected_version == number


@pytest.mark.parametrize("extra", [{"expected_version": 3.0}, {"causation_id": "a-1", "expected_version": 0.0}])
def test_a_number_that_is_spelt_oddly_changes_nothing_else(extra: dict[str, Any]) -> None:
    events = [event(1, data={"a": [1]}, metadata={"b": 2}, schema_version=2.0), event()]
    odd = as_command(command(*events, command_id="c-1", **extra))
    even = as_command(
        command(event(1, data={"a": [1]}, metadata={"b": 2}, schema_version=2), event(), command_id="c-1")
        | {name: int(value) if isinstance(value, float) else value for name, value in extra.items()}
    )
    assert msgspec.json.encode(odd) == msgspec.json.encode(even)


def test_the_last_of_two_members_of_one_name_counts() -> None:
    value = b'{"stream":"a","stream":"order-42","events":7,"events":[{"type":1,"type":"T","metadata":0,"metadata":{}}]}'
    read = as_command(value)
    assert (read.stream, read.events[0].type, bytes(read.events[0].metadata)) == (STREAM, "T", b"{}")


@pytest.mark.parametrize("name", ["é" * 127, " ", "a b", "日本", "😀", "\u00a0", "\u2028", "a/b?c#d%", '"\\'])
def test_a_name_is_any_text_without_control_characters(name: str) -> None:
    assert as_command(command(stream=name, command_id=name)).stream == name


def test_a_uuid_may_have_upper_case_letters() -> None:
    assert as_command(command(event(event_id=event_id(10).upper()))).events[0].event_id == event_id(10).upper()


def test_a_thousand_events_are_a_command() -> None:
    assert len(as_command(command(*(event(n) for n in range(1000)))).events) == 1000


def test_an_event_id_that_is_there_twice_is_left_to_the_decision() -> None:
    assert len(as_command(command(event(1), event(1))).events) == 2


# --- what is none: malformed


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b" ",
        b"{",
        b"}",
        b"nul",
        b"'a'",
        b"\x00",
        b"{'stream':1}",
        b"\xef\xbb\xbf" + text(command()),
        text(command()) + b"x",
        text(command()) + text(command()),
        text(command())[:-1],
        with_event(b'"data":NaN'),
        with_event(b'"data":Infinity'),
        with_event(b'"data":01'),
        with_event(b'"data":"\x00"'),
        with_event(b'"data":"\n"'),
        with_event(b'"data":"\\x"'),
        with_event(b'"data":"\\ud800"'),
        with_event(b'"data":"\\udc00number"'),
        with_event(b'"data":{"\\ud800":1}'),
        b'{"stream":"\\ud800","events":[{"type":"T"}]}',
        b'{"stream":"order-42","events":[{"type":"T"}],"command_id":NaN}',
        b'{"stream":"order-42","expected_version":true,"events":[{"type":"T"}],}',
        b'{"stream":"order-42","typo":1,"events":[{"type":"T"}]',
        b'{"stream":7} x',
    ],
)
def test_what_is_not_json_is_unreadable(value: bytes) -> None:
    assert why_unreadable(value).startswith("Not JSON")


@pytest.mark.parametrize(
    "value",
    [
        b"\xff",
        b"\xc0\x80",
        b"\xed\xa0\x80",
        text(command())[:-1] + b"\xe9}",
        with_event(b'"data":"\xff"'),
        with_event(b'"data":{"a":["\xc3"]}'),
        b'{"stream":"\xf5","events":[{"type":"T"}]}',
    ],
)
def test_what_is_not_utf_8_is_unreadable_even_inside_data(value: bytes) -> None:
    assert why_unreadable(value).startswith("Not UTF-8")


def test_a_tombstone_is_unreadable() -> None:
    assert "tombstone" in why_unreadable(None)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b"7", "not a JSON object"),
        (b'"text"', "not a JSON object"),
        (b"[" + text(command()) + b"]", "not a JSON object"),
        (b"{}", "stream is missing"),
        (b'{"stream":null,"events":[{"type":"T"}]}', "stream is missing or not a string"),
        (b'{"stream":["a"],"events":[{"type":"T"}]}', "stream is missing or not a string"),
        (b'{"stream":"a"}', "events is missing"),
        (b'{"stream":"a","events":{"type":"T"}}', "events is missing or not an array of objects"),
        (b'{"stream":"a","events":[{"type":"T"},7]}', "events is missing or not an array of objects"),
        (b'{"stream":"a","events":[[]]}', "events is missing or not an array of objects"),
        (b'{"stream":"a","events":[{"type":"T"},{}]}', "events[1].type is missing"),
        (b'{"stream":"a","typo":1,"events":[{"data":{}}]}', "events[0].type is missing"),
    ],
)
def test_json_of_another_shape_is_unreadable(value: bytes, why: str) -> None:
    assert why in why_unreadable(value)


# --- what has a flaw: invalid


@pytest.mark.parametrize(
    ("flawed", "why"),
    [
        (command(expectedVersion=3), "'expectedVersion'"),
        (command(data={}), "'data'"),
        (command(event(1, eventId="x")), "'eventId' in events[0]"),
        (command(event(1), event(2, events=[])), "'events' in events[1]"),
        (command() | {"events": []}, "events is empty"),
        (command(stream=""), "Stream is empty"),
        (command(event(1, type="")), "type is empty"),
        (command(event(1, type=None)), "type is not a string"),
        (command(event(1, type=7)), "type is not a string"),
        (command(command_id=""), "Command_id is empty"),
        (command(correlation_id=""), "Correlation_id is empty"),
        (command(causation_id=""), "Causation_id is empty"),
        (command(command_id=None), "command_id is not a string"),
        (command(correlation_id=7), "correlation_id is not a string"),
        (command(causation_id=["a"]), "causation_id is not a string"),
        (command(event(event_id=7)), "events[0].event_id is not a UUID"),
        (command(event(event_id=None)), "events[0].event_id is not a UUID"),
        (command(event(1), event(event_id="7")), "events[1].event_id is not a UUID"),
        (command(event(event_id=event_id(1) + "\n")), "event_id is not a UUID"),
        (command(event(event_id=event_id(1).replace("-", ""))), "event_id is not a UUID"),
        (command(event(event_id="{" + event_id(1) + "}")), "event_id is not a UUID"),
        (command(event(event_id=event_id(1)[:-1] + "٣")), "event_id is not a UUID"),
        (command(event(1, metadata=[])), "events[0].metadata is not an object"),
        (command(event(1, metadata=None)), "events[0].metadata is not an object"),
        (command(event(1, metadata="{}")), "events[0].metadata is not an object"),
        (command(event(1, metadata=[], schema_version=1.0)), "events[0].metadata is not an object"),
    ],
)
def test_a_flaw_is_named(flawed: dict[str, Any], why: str) -> None:
    assert why in why_invalid(flawed)


@pytest.mark.parametrize(
    "spelt",
    [
        "-1",
        "-1.0",
        "0.5",
        "1e-1",
        "9223372036854775808",
        "9223372036854775808.0",
        "18446744073709551616",
        "1e400",
        "1e99999999999999999999",
        "1e" + "9" * 5000,
        "9" * 5000,
        "true",
        "null",
        '"3"',
        '"ANY"',
        '""',
        "[]",
        "{}",
        '["any"]',
    ],
)
def test_an_expected_version_that_is_none_is_invalid(spelt: str) -> None:
    value = b'{"stream":"order-42","expected_version":%b,"events":[{"type":"T"}]}' % spelt.encode()
    assert "expected_version is not a whole number" in why_invalid(value)


@pytest.mark.parametrize("spelt", ["0", "-1", "2147483648", "1.5", "1e10", "true", "null", '"1"', "[1]"])
def test_a_schema_version_that_is_none_is_invalid(spelt: str) -> None:
    assert "events[0].schema_version is not" in why_invalid(with_event(b'"schema_version":' + spelt.encode()))


@pytest.mark.parametrize("control", ["\x00", "\x1f", "\n", "\x7f", "\x80", "\x9f"])
@pytest.mark.parametrize("field", ["stream", "command_id", "correlation_id", "causation_id", "type"])
def test_a_control_character_in_a_name_is_invalid(field: str, control: str) -> None:
    name = f"a{control}b"
    flawed = command(event(1, type=name)) if field == "type" else command() | {field: name}
    assert "has a control character" in why_invalid(flawed)


def test_data_beyond_a_float_does_not_hide_another_flaw() -> None:
    value = b'{"stream":"order-42","typo":1,"events":[{"type":"T","data":[1e400,%b]}]}' % (b"9" * 5000)
    assert "'typo'" in why_invalid(value)


def test_a_flaw_says_which_command_it_is() -> None:
    decoded = read(command(command_id="c-1", typo=1))
    assert isinstance(decoded, Unfit)
    assert (decoded.stream, decoded.command_id) == (STREAM, "c-1")


def test_a_command_id_that_is_no_string_is_not_told() -> None:
    decoded = read(command(command_id=7))
    assert isinstance(decoded, Unfit)
    assert decoded.command_id is UNSET


@pytest.mark.parametrize("unit", ["x", "\x00", "\U000e0001", '"', "\\", "😀"])
def test_the_reply_to_a_flaw_is_no_longer_than_the_record(unit: str) -> None:
    name = unit * 10_000
    for flawed in (command() | {name: 1}, command(event(1) | {name: 1}), command(typo=1, command_id=name)):
        sent = record(0, json.dumps(flawed, ensure_ascii=False).encode())
        assert len(encode_outcome(Past().decide_one(sent))) < len(sent.value or b"") + 1000


# --- limits


def test_the_record_may_have_a_million_bytes_with_its_key() -> None:
    frame = len(text(command(event(1, data=""))))
    full = text(command(event(1, data="x" * (1_000_000 - len(STREAM) - frame))))
    assert isinstance(read(full), Command)
    assert "1000001 bytes" in why_too_large(full + b" ")


def test_a_record_over_the_limit_is_not_parsed() -> None:
    decoded = read(b"{" * 1_000_001)
    assert isinstance(decoded, Unfit)
    assert decoded.stream is None


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"]\\"}":', b"}"), (b"[0,", b"]")])
def test_json_may_be_nested_64_levels_deep(opening: bytes, closing: bytes) -> None:
    levels = 64 - len(["command", "events", "event"])
    assert isinstance(read(with_event(b'"data":' + opening * levels + b"0" + closing * levels)), Command)
    levels += 1
    assert "64 levels" in why_too_large(with_event(b'"data":' + opening * levels + b"0" + closing * levels))


def test_brackets_in_strings_do_not_nest() -> None:
    assert isinstance(read(command(event(1, data='\\"[{' * 500))), Command)


def test_brackets_beside_each_other_do_not_nest() -> None:
    assert isinstance(read(command(event(1, data=[[]] * 500))), Command)


def test_very_deep_json_is_too_large() -> None:
    assert "64 levels" in why_too_large(b"[" * 900_000)
    assert "64 levels" in why_too_large(with_event(b'"data":' + b"[" * 400_000 + b"]" * 400_000))


@pytest.mark.parametrize(
    "value",
    [
        b"[" * 65 + b'"' + b'\\"' * 450_000,
        b"[" * 65 + b'"' * 900_001,
        b"[]" * 450_000,
        b'{"a":' * 180_000,
        b"\\" * 900_000 + b"[" * 65,
    ],
    ids=["open string", "quotes", "pairs", "objects", "backslashes"],
)
def test_hostile_text_is_read_in_a_time_that_its_length_bounds(value: bytes) -> None:
    begin = time.process_time()
    assert not isinstance(read(value), Command)
    assert time.process_time() - begin < 2


def test_a_depth_beyond_the_interpreters_is_an_answer_too() -> None:
    assert isinstance(read(b"[" * 5000, NO_LIMITS), Unreadable)


def test_more_than_a_thousand_events_are_too_large() -> None:
    assert "1001 events" in why_too_large(command(*(event(n) for n in range(1001))))


@pytest.mark.parametrize(
    ("large", "what"),
    [
        (command(stream="é" * 128), "Stream has 256 bytes"),
        (command(event(1), event(2, type="x" * 10_240)), "An event's type has 10240 bytes"),
        (command(command_id="x" * 256), "Command_id has 256 bytes"),
        (command(correlation_id="x" * 256), "Correlation_id has 256 bytes"),
        (command(causation_id="x" * 256), "Causation_id has 256 bytes"),
    ],
)
def test_a_name_over_255_bytes_is_too_large(large: dict[str, Any], what: str) -> None:
    assert what in why_too_large(large)


@pytest.mark.parametrize("flaw", [{"typo": 1}, {"expected_version": -1}, {"command_id": ""}])
def test_a_command_with_a_flaw_is_too_large_first(flaw: dict[str, Any]) -> None:
    assert "Correlation_id" in why_too_large(command(**flaw, correlation_id="x" * 256))
    assert "1001 events" in why_too_large(command(*(event(n) for n in range(1001)), **flaw))


# --- any bytes

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.binary() | st.text().map(str.encode) | json_values.map(text))
def test_any_bytes_are_read_without_an_exception(value: bytes) -> None:
    assert isinstance(read(value), Command | Unfit | Unreadable)


@given(st.data())
def test_a_command_with_some_bytes_changed_is_read_and_decided_without_an_exception(data: st.DataObject) -> None:
    value = bytearray(text(command(event(1, data={"a": [1.5e3, "\u00e9"]}, metadata={"b": 1}), command_id="c-1")))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(value) - 1))
        value[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    past = Past()
    sent = [record(n, bytes(value)) for n in range(3)]
    outcomes = past.decide(sent[0], record(1, command(event(1), expected_version=9, command_id="c-1")), sent[2])
    assert [decode_outcome(encode_outcome(outcome)) for outcome in outcomes] == outcomes
    for stored in past.events:
        json.loads(stored.data)
        json.loads(stored.metadata or b"{}")


# --- outcomes


def test_an_accepted_outcome_is_written_as_the_contract_has_it() -> None:
    outcome = Past().decide_one(record(1284, command(event(1), command_id="c-1")))
    assert json.loads(encode_outcome(outcome)) == {
        "outcome": "accepted",
        "stream": STREAM,
        "tenant": "default",
        "command_id": "c-1",
        "partition": outcome.partition,
        "offset": 1284,
        "first_version": 1,
        "last_version": 1,
        "first_position": 1,
        "last_position": 1,
        "event_ids": [event_id(1)],
    }


def test_a_conflict_carries_its_numbers() -> None:
    outcome = Past().decide_one(record(0, command(expected_version=3)))
    written = json.loads(encode_outcome(outcome))
    assert (written["outcome"], written["reason"]) == ("conflict", "wrong_expected_version")
    assert (written["expected_version"], written["actual_version"]) == (3, 0)
    assert not {"replayed", "reply_refused", "command_id"} & written.keys()


@pytest.mark.parametrize(
    "outcome",
    [
        Duplicate(
            tenant="acme",
            partition=1,
            offset=2,
            stream="s",
            first_version=1,
            last_version=2,
            first_position=3,
            last_position=4,
            event_ids=["a", "b"],
        ),
        Conflict(
            tenant="acme",
            partition=1,
            offset=2,
            stream="s",
            reason="wrong_expected_version",
            detail="…",
            expected_version="no_stream",
            actual_version=1,
            replayed=True,
        ),
        Rejected(tenant="acme", partition=1, offset=2, reason="malformed", detail="\x00", reply_refused=True),
    ],
)
def test_an_outcome_is_read_as_it_was_written(outcome: Duplicate | Conflict | Rejected) -> None:
    assert decode_outcome(encode_outcome(outcome)) == outcome


# --- events

STORED = RecordedEvent(
    stream="order/42 é",
    version=4,
    position=9031,
    event_id=event_id(1),
    type="OrderShipped",
    schema_version=2,
    data=b'{"carrier": "DHL"}',
    metadata=b'{"user":"u-7"}',
    time_ms=1_760_000_000_007,
    offset=1284,
    command_id="c-1",
    correlation_id="k-1",
    causation_id="a-1",
    traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    hash=bytes(range(32)),
)
BARE = RecordedEvent("s", 1, 1, event_id(2), "T", 1, b"{}", b"", 0, 0, None, None, None, None, bytes(32))
ACME = Log("acme", 7)


def test_an_events_headers_are_cloudevents_in_binary_mode() -> None:
    assert event_headers(ACME, STORED) == [
        ("ce_specversion", b"1.0"),
        ("ce_id", event_id(1).encode()),
        ("ce_source", b"/tidemark/acme/order%2F42%20%C3%A9"),
        ("ce_type", b"OrderShipped"),
        ("ce_subject", "order/42 é".encode()),
        ("ce_time", b"2025-10-09T08:53:20.007Z"),
        ("content-type", b"application/json"),
        ("ce_streamversion", b"4"),
        ("ce_position", b"9031"),
        ("ce_schemaversion", b"2"),
        ("ce_tenant", b"acme"),
        ("ce_correlationid", b"k-1"),
        ("ce_causationid", b"a-1"),
        ("ce_commandid", b"c-1"),
        ("ce_metadata", b'{"user":"u-7"}'),
        ("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ]


def test_headers_for_what_an_event_does_not_have_are_left_out() -> None:
    names = {name for name, _ in event_headers(ACME, BARE)}
    optional = {"ce_correlationid", "ce_causationid", "ce_commandid", "ce_metadata", "traceparent"}
    assert not names & optional
    assert names | optional == {name for name, _ in event_headers(ACME, STORED)}


@pytest.mark.parametrize("metadata", ['{\n\t"a":\r\n1}', '{"a":"\x7f\u0085"}', '{"\x80":"\\n"}', '{"a":"é\u2028"}'])
def test_metadata_is_a_header_without_control_characters_and_stays_the_same_json(metadata: str) -> None:
    header = dict(event_headers(ACME, replace(STORED, metadata=metadata.encode())))["ce_metadata"]
    assert not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 for c in header.decode())
    assert json.loads(header) == json.loads(metadata)


@pytest.mark.parametrize(
    ("time_ms", "written"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (999, "1970-01-01T00:00:00.999Z"),
        (951_782_400_001, "2000-02-29T00:00:00.001Z"),
        (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_times_are_rfc_3339_in_utc(time_ms: int, written: str) -> None:
    assert rfc3339(time_ms) == written
