"""Two texts of JSON are the same content where they say the same."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Raw

from processor.content import canonical, command_content, metadata_or_empty, same_content, spelt
from processor.messages import Command, KnownEvent, NewEvent
from tests.records import event_id


def new(data: bytes = b"{}", metadata: bytes = b"{}", **fields: Any) -> NewEvent:
    return NewEvent(**{"type": "T", **fields}, data=Raw(data), metadata=Raw(metadata))


def known(data: bytes = b"{}", metadata: bytes = b"") -> KnownEvent:
    return KnownEvent(1, 1, "T", 1, data, metadata, 0)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"{}", b" { } "),
        (b'{"a":1,"b":2}', b'{"b":2,"a":1}'),
        (b'[{"a":1,"b":2}]', b'[ { "b" : 2 , "a" : 1 } ]'),
        (b'"\\u0041\\/\\n"', b'"A/\\u000a"'),
        (b'"\\ud83d\\ude00"', '"😀"'.encode()),
        (b'{"a":1,"a":2}', b'{"a":2}'),
        (b"1", b"1.0"),
        (b"1", b"10e-1"),
        (b"1", b"0.001E+3"),
        (b"0", b"-0"),
        (b"0", b"0.00e7"),
        (b"-120", b"-1.2e2"),
        (b"1" + b"0" * 5000, b"1e5000"),
        (b"1e400", b"10e399"),
        (b"1e-400", b"0.1e-399"),
        (b"1e1" + b"0" * 5000, b"1e1" + b"0" * 5000),
    ],
)
def test_spelling_does_not_count(one: bytes, other: bytes) -> None:
    assert canonical(one) == canonical(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"1", b'"1"'),
        (b"1", b'"1e0"'),
        (b"1", b"true"),
        (b"0", b"false"),
        (b"0", b"null"),
        (b"1", b'{"number":"1e0"}'),
        (b"[]", b"{}"),
        (b"[1,2]", b"[2,1]"),
        (b'"a"', b'"A"'),
        ('"é"'.encode(), '"e\u0301"'.encode()),
        (b"9007199254740993", b"9007199254740992"),
        (b"0.1", b"0.1000000000000000055511151231257827"),
        (b"1e400", b"1e401"),
        (b"1", b"-1"),
        (b'{"a":null}', b"{}"),
        (b'{"a":[1]}', b'{"a":1}'),
        (b"1e1" + b"0" * 5000, b"1e2" + b"0" * 5000),
    ],
)
def test_values_do(one: bytes, other: bytes) -> None:
    assert canonical(one) != canonical(other)


decimals = st.decimals(allow_nan=False, allow_infinity=False).filter(lambda number: abs(number.adjusted()) < 4000)


@given(decimals, decimals)
def test_numbers_are_the_same_where_their_values_are(one: Decimal, other: Decimal) -> None:
    assert (spelt(str(one)) == spelt(str(other))) == (one == other)


@given(decimals, st.integers(0, 30))
def test_a_number_has_one_spelling(number: Decimal, zeros: int) -> None:
    sign, digits, exponent = number.as_tuple()
    text = "".join(map(str, digits))
    longer = f"{'-' * sign}{text}{'0' * zeros}.0E{int(exponent) - zeros:+d}"
    assert spelt(longer) == spelt(str(number))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text('ab\n"é😀'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
    max_leaves=8,
)


def turned(value: Any) -> Any:
    """The same value with the members of its objects in reverse."""
    if isinstance(value, dict):
        return {name: turned(value[name]) for name in reversed(value)}
    return [turned(item) for item in value] if isinstance(value, list) else value


@given(json_values, st.sampled_from([None, 1, "\t"]), st.booleans())
def test_key_order_white_space_and_escapes_do_not_count(value: Any, indent: int | str | None, escaped: bool) -> None:
    other = json.dumps(turned(value), indent=indent, ensure_ascii=escaped).encode()
    assert canonical(json.dumps(value).encode()) == canonical(other)


def same(one: Any, other: Any) -> bool:
    """Python's equality, without its 1 == True."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


@given(json_values, json_values)
def test_the_same_spelling_is_the_same_value(one: Any, other: Any) -> None:
    equal = canonical(json.dumps(one).encode()) == canonical(json.dumps(other).encode())
    assert equal == same(one, other)


@pytest.mark.parametrize("text", [b"{}", b"{ }", b"{\n\t}"])
def test_an_empty_metadata_object_is_no_metadata(text: bytes) -> None:
    assert metadata_or_empty(new(metadata=text)) == b""


@pytest.mark.parametrize("text", [b'{"a":1}', b'{ "" : {} }'])
def test_other_metadata_is_kept_as_it_came(text: bytes) -> None:
    assert metadata_or_empty(new(metadata=text)) == text


def test_content_is_type_schema_version_data_and_metadata() -> None:
    assert same_content(new(), known())
    assert same_content(new(b'{"a":1}', b'{"b":2}'), known(b'{ "a":1.0}', b'{"b":2 }'))
    assert not same_content(new(type="U"), known())
    assert not same_content(new(schema_version=2), known())
    assert not same_content(new(b"[]"), known())
    assert not same_content(new(metadata=b'{"a":1}'), known())


def test_a_commands_content_is_its_events_and_the_expected_version() -> None:
    plain = command_content(Command("s", [new()]))
    assert plain == command_content(Command("s", [new(b" { }", b"{ }")], command_id="c-1", correlation_id="k-1"))
    others = [
        Command("s", [new()], expected_version=0),
        Command("s", [new()], expected_version="no_stream"),
        Command("s", [new(), new()]),
        Command("s", [new(event_id=event_id(1))]),
        Command("s", [new(type="U")]),
        Command("s", [new(schema_version=2)]),
        Command("s", [new(b"[]")]),
        Command("s", [new(metadata=b'{"a":1}')]),
    ]
    assert len({plain, *map(command_content, others)}) == 1 + len(others)


def test_an_event_id_in_upper_case_is_the_same_content() -> None:
    lower, upper = (Command("s", [new(event_id=text)]) for text in (event_id(10), event_id(10).upper()))
    assert command_content(lower) == command_content(upper)
    assert new().event_id is UNSET
