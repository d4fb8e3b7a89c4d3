"""What is compiled says what its Python says, to the byte."""

import importlib.util
import math
import struct
import uuid
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace
from sqlalchemy import BigInteger

import processor.decide as compiled
from processor.chain import genesis, recorded, recorded_in_python
from processor.codec import decode, decode_in_full
from processor.lookup import doubtful, presumed_new, streams_of, wanted
from processor.messages import Command, Head, Limits, Log, NewEvent, Plan, RecordedEvent
from processor.stores import postgres
from processor.stores.rows import Row, event_rows
from processor.stores.sqlite import event_lists, event_lists_in_python
from processor.stores.tables import events
from tests.records import LOG, RULES, SomeRecord, command, event, record
from tests.test_codec import json_values, text
from tests.test_decide import a_past, some_logs

pytestmark = pytest.mark.skipif(
    compiled.__file__.endswith(".py"), reason="the native part was not built, for lack of a C compiler"
)

SOURCES = Path(__file__).parents[1] / "processor"


def as_it_stands(name: str, **called: object) -> ModuleType:
    """A module as Python, with what it calls as Python, too."""
    spec = importlib.util.spec_from_file_location(f"{name}_as_it_stands", SOURCES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    vars(module).update(called)
    return module


PYTHON = as_it_stands("decide", recorded=recorded_in_python)
LOOKUP = as_it_stands("lookup", event_ids=PYTHON.event_ids)

names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40)
# On both sides of what is gathered before it is hashed.
long_names = names | st.sampled_from(["n" * 1_023, "n" * 1_024, "\u00e9" * 1_025])
ids = st.uuids().map(str)
counts = st.integers(0, 2**63 - 1_000)
payloads = st.sampled_from([b"{}", b"1", b'{"a": "\xc3\xa9"}', b"1" * 1_023, b"1" * 2_000])
new_events = st.builds(
    NewEvent, type=long_names, event_id=ids, schema_version=st.integers(1, 2**31 - 1), data=payloads, metadata=payloads
)
commands = st.builds(
    Command, stream=long_names, events=st.lists(new_events, min_size=1, max_size=4), command_id=long_names,
    correlation_id=names, causation_id=names,
)  # fmt: skip


def test_all_that_can_be_compiled_is() -> None:
    paths = [SOURCES / "decide.py", SOURCES / "lookup.py", *SOURCES.rglob("*.pyx")]
    assert [path for path in paths if not [*path.parent.glob(f"{path.stem}.*.so")]] == []


@pytest.mark.parametrize("split", [False, True])
@given(records=some_logs, data=st.data())
def test_the_decision_is_the_same(split: bool, records: list[SomeRecord], data: st.DataObject) -> None:
    cuts = {0, len(records)} | (data.draw(st.sets(st.integers(1, len(records)))) if split else set())
    past = a_past()
    for begin, end in pairwise(sorted(cuts)):
        entries = [(it, decode(it.key, it.value, Limits())) for it in records[begin:end]]
        presumed = presumed_new(past.heads, entries) if data.draw(st.booleans()) else set()

        def decided(by: Any, entries: Any = entries, presumed: Any = presumed) -> Plan | str:
            view = past.view()
            view.presumed_new = presumed
            try:
                plan: Plan = by.decide(RULES, past.log, past.checkpoint, view, entries, entries[-1][0].offset + 1)
            except by.Unread:
                return "unread"
            return plan

        assert decided(compiled) == decided(PYTHON)
        past.plan(*records[begin:end])


@given(some_logs, st.dictionaries(st.sampled_from(["order-42", "order-8"]), st.builds(Head, counts, st.integers(0, 3))))
def test_what_is_looked_up_is_the_same(records: list[SomeRecord], heads: dict[str, Head]) -> None:
    entries = [(it, decode(it.key, it.value, Limits())) for it in records]
    presumed = presumed_new(heads, entries)
    assert presumed == LOOKUP.presumed_new(heads, entries)
    for refused in (None, set(), {"c-1"}):
        asked = doubtful(LOG, 1, entries, presumed, refused)
        assert asked == LOOKUP.doubtful(LOG, 1, entries, presumed, refused)
    assert wanted(LOG, 0, entries, [3]) == LOOKUP.wanted(LOG, 0, entries, [3])
    assert streams_of(entries) == LOOKUP.streams_of(entries)


@given(commands, counts, counts, counts, counts, st.none() | names)
def test_events_and_their_hashes_are_the_same(
    given_command: Command, version: int, position: int, time_ms: int, offset: int, traceparent: str | None
) -> None:
    event_ids = [str(it.event_id) for it in given_command.events]
    rest = genesis(Log("default", 0)), given_command, event_ids, version, position, time_ms, offset, traceparent
    assert recorded(*rest) == recorded_in_python(*rest)


@pytest.mark.parametrize(("previous", "event_ids"), [(b"", ["a"]), (bytes(33), ["a"]), (bytes(32), [])])
def test_events_are_made_of_nothing_that_does_not_fit(previous: bytes, event_ids: list[str]) -> None:
    with pytest.raises(ValueError, match=r"no hash|one id"):
        recorded(previous, Command("order-42", [NewEvent("T")]), event_ids, 0, 1, 0, 0, None)


some_limits = st.builds(
    Limits, record_bytes=st.sampled_from([100, 250, 10_000]), events=st.integers(1, 2), depth=st.integers(2, 5),
    name_bytes=st.sampled_from([8, 40, 255]),
)  # fmt: skip
some_names = st.sampled_from(["a", "order-42", "", "\u00e9", "a\u0000b", "a\u007f", "n" * 11, "n" * 64])
UUID = "0199f2d4-9c1e-7b53-8a55-6d5f0c2f9a10"
some_ids = st.sampled_from(
    [UUID, UUID.upper(), UUID.replace("-", "", 1) + "-", *(UUID[:-1] + last for last in "g@`/:G\u00e9"), ""]
)
some_values = st.builds(
    lambda stream, events, fields: text(command(*events, stream=stream, **fields)),
    some_names,
    st.lists(
        st.builds(
            lambda name, fields: event() | {"type": name} | fields,
            some_names,
            st.fixed_dictionaries({}, optional={"event_id": some_ids, "data": json_values, "metadata": json_values}),
        ),
        max_size=3,
    ),
    st.fixed_dictionaries({}, optional={"command_id": some_names, "correlation_id": some_names, "else": some_names}),
)


@given(st.none() | st.binary(max_size=5), st.none() | st.binary() | json_values.map(text) | some_values, some_limits)
@example(None, '{"stream":"é","events":[{"type":"T"}]}'.encode(), Limits())
@example(None, b'{"stream":"a","events":[{"type":"T","data":[[[[]]]]}]}', Limits(depth=5))
def test_what_is_read_is_the_same(key: bytes | None, value: bytes | None, limits: Limits) -> None:
    assert decode(key, value, limits) == decode_in_full(key, value, limits)


def test_a_glance_is_enough_for_a_command_as_they_nearly_all_are() -> None:
    from processor._codec import Decoder

    def in_full(*_: object) -> Command:
        raise AssertionError("asked in full")

    it = record(0, command(event(1, data={"a": [1]}, metadata={"b": 1}), expected_version=3, command_id="c-1"))
    found = decode_in_full(it.key, it.value, Limits())
    assert isinstance(found, Command)
    assert Decoder(lambda _: found, in_full)(it.key, it.value, Limits()) is found


def rows(values: list[Any]) -> list[Any]:
    return [(type(value), None if isinstance(value, float) and math.isnan(value) else value) for value in values]


def a_plan(given_commands: list[Command], most: int) -> Plan:
    """Events as nothing decides them, of which all numbers are as high as may be."""
    made: list[RecordedEvent] = []
    for it in given_commands:
        event_ids = [str(one.event_id) for one in it.events]
        made += recorded(genesis(Log("default", 0)), it, event_ids, most - 9, most - 99 + len(made), most, most, None)
    plan = a_past().plan(record(0, command()))
    plan.events = made
    plan.heads = {it.stream: Head(most - number, 1) for number, it in enumerate(made, 1)}
    return plan


highest = st.sampled_from([1_000, 2**31, 2**63 - 1])


@given(st.lists(commands, min_size=1, max_size=4), highest, st.sampled_from([1, 2, 4, 1_024]))
def test_rows_for_sqlite_are_the_same(given_commands: list[Command], most: int, at_once: int) -> None:
    plan = a_plan(given_commands, most)
    for plans in ([], [(7, plan)], [(7, plan), (8, plan)]):
        compiled_lists, lists = (by(plans, at_once) for by in (event_lists, event_lists_in_python))
        assert [*map(rows, compiled_lists)] == [*map(rows, lists)]


def copied_by_hand(row: Row) -> bytes:
    parts = [struct.pack(">h", len(row))]
    for value, column in zip(row, events.columns, strict=True):
        match value:
            case None:
                parts.append(struct.pack(">i", -1))
                continue
            case int():
                sent = struct.pack(">q" if isinstance(column.type, BigInteger) else ">i", value)
            case str():
                sent = uuid.UUID(value).bytes if column.name == "event_id" else value.encode()
            case _:
                sent = value
        parts.append(struct.pack(">i", len(sent)) + sent)
    return b"".join(parts)


@given(st.lists(commands, min_size=1, max_size=4), highest)
def test_rows_for_postgresql_are_the_same(given_commands: list[Command], most: int) -> None:
    plan = a_plan(given_commands, most)
    assert postgres.copied is not None
    by_hand = b"".join(map(copied_by_hand, event_rows(7, plan, postgres.TYPES)))
    assert postgres.copied([(7, plan), (7, plan)]) == 2 * by_hand


def test_an_id_that_is_no_uuid_makes_no_row() -> None:
    plan = a_past().plan(record(0, command()))
    plan.events = [replace(it, event_id="not-a-uuid") for it in plan.events]
    assert postgres.copied is not None
    with pytest.raises(ValueError, match="no UUID"):
        event_lists([(7, plan)], 1)
    with pytest.raises(ValueError, match="no UUID"):
        postgres.copied([(7, plan)])
