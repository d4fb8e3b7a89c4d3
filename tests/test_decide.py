"""The decision table, row by row, and what holds for every log of commands."""

import json
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid5

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from processor.chain import event_hash, fingerprint, genesis, payload_digest
from processor.errors import Misfit
from processor.messages import (
    Accepted,
    Conflict,
    Duplicate,
    Limits,
    Log,
    Outcome,
    Plan,
    Reason,
    Rejected,
    Rules,
)
from processor.partition import partition_of
from tests.records import LOG, PARTITIONS, STREAM, Past, SomeRecord, command, event, event_id, record

NAMESPACE = UUID("5e867e96-86a0-5411-9558-ce1f80e8059c")
ELSEWHERE = next(name for name in (f"order-{n}" for n in range(99)) if partition_of(name.encode(), 4) != LOG.partition)


def one(outcome: Outcome) -> str:
    """An outcome in a word: its reason where it has one."""
    return outcome.reason if isinstance(outcome, Conflict | Rejected) else type(outcome).__name__.lower()


def many(outcomes: list[Outcome]) -> list[str]:
    return [one(outcome) for outcome in outcomes]


def accepted(outcome: Outcome) -> Accepted:
    assert isinstance(outcome, Accepted), outcome
    return outcome


def rejected(outcome: Outcome, reason: Reason) -> Rejected:
    assert isinstance(outcome, Rejected), outcome
    assert outcome.reason == reason, outcome
    return outcome


# --- rows 1 to 5: the record alone


@pytest.mark.parametrize("value", [None, b"", b"{", b"[]", b'"text"', b"\xff", b"null", b"{}"])
def test_row_1_what_is_no_command_is_malformed(value: bytes | None) -> None:
    outcome = rejected(Past().decide_one(record(0, value)), "malformed")
    assert outcome.stream is UNSET
    assert outcome.command_id is UNSET
    assert outcome.detail


@pytest.mark.parametrize("key", [None, "", "order-43", "ORDER-42", "order-42 "])
def test_row_2_a_key_that_is_not_the_streams_name_is_wrong(key: str | None) -> None:
    outcome = rejected(Past().decide_one(record(0, command(command_id="c-1"), key=key)), "wrong_key")
    assert (outcome.stream, outcome.command_id) == (STREAM, "c-1")


def test_row_2_a_key_that_is_not_text_is_wrong() -> None:
    flawed = SomeRecord(0, json.dumps(command()).encode(), b"\xff" * 500, None, ())
    assert len(rejected(Past().decide_one(flawed), "wrong_key").detail) < 1000


def test_row_3_another_streams_partition_is_wrong_and_the_detail_names_the_partitioner() -> None:
    outcome = rejected(Past().decide_one(record(0, command(stream=ELSEWHERE))), "wrong_partition")
    assert str(partition_of(ELSEWHERE.encode(), PARTITIONS)) in outcome.detail
    assert "murmur2_random" in outcome.detail


@pytest.mark.parametrize(
    "limits", [Limits(record_bytes=40), Limits(depth=1), Limits(events=1), Limits(name_bytes=7)], ids=str
)
def test_row_4_over_a_limit_is_too_large(limits: Limits) -> None:
    rejected(Past(limits=limits).decide_one(record(0, command(event(1), event(2)))), "too_large")


@pytest.mark.parametrize(
    "flawed",
    [
        command(event(1), event(2), event(1)),
        command(event(event_id=event_id(10)), event(event_id=event_id(10).upper())),
        command(typo=1),
        command(event(typo=1)),
        command(expected_version=-1),
        command(expected_version="none"),
        command(command_id=7),
    ],
    ids=str,
)
def test_row_5_a_command_with_a_flaw_is_invalid(flawed: dict[str, Any]) -> None:
    assert rejected(Past().decide_one(record(0, flawed)), "invalid").stream == STREAM


def test_row_5_an_id_that_is_given_and_derived_is_twice_in_the_command() -> None:
    derived = str(uuid5(NAMESPACE, "command:c-1:1"))
    twice = command(event(event_id=derived), event(), command_id="c-1")
    assert derived in rejected(Past().decide_one(record(0, twice)), "invalid").detail


def test_rows_1_to_5_apply_in_their_order() -> None:
    past = Past(limits=Limits(name_bytes=8))
    flawed = command(event(1), event(1), event(2, type="LongerThanEight"), typo=1)
    assert many(
        [
            past.decide_one(record(0, json.dumps(flawed).encode()[1:], key="other")),
            past.decide_one(record(1, flawed | {"stream": ELSEWHERE}, key="other")),
            past.decide_one(record(2, flawed | {"stream": ELSEWHERE})),
            past.decide_one(record(3, flawed)),
            past.decide_one(record(4, command(event(1, type="T"), typo=1))),
        ]
    ) == ["malformed", "wrong_key", "wrong_partition", "too_large", "invalid"]


def test_rows_4_and_5_apply_in_their_order_whichever_part_has_the_flaw() -> None:
    past = Past(limits=Limits(name_bytes=12))
    longer = "thirteen byte"
    flaws = [
        command(event(1, schema_version=0), **{field: longer})
        for field in ("command_id", "correlation_id", "causation_id")
    ]
    flaws += [command(event(1), event(1, type=longer)), command(event(1, type=longer), event(2, metadata=[]))]
    assert many([past.decide_one(record(n, flawed)) for n, flawed in enumerate(flaws)]) == ["too_large"] * len(flaws)


def test_rows_1_to_5_are_not_remembered_by_command_id() -> None:
    past = Past()
    flawed = command(event(1, schema_version=0), command_id="c-1")
    assert one(past.decide_one(record(0, flawed))) == "invalid"
    assert one(past.decide_one(record(1, command(event(1), command_id="c-1")))) == "accepted"


# --- rows 6 and 7: refusals are remembered


def refused_commands() -> list[tuple[Reason, dict[str, Any]]]:
    """For each reason that is remembered, a command that meets it after events 1 and 2."""
    return [
        ("wrong_expected_version", command(event(9), expected_version=7, command_id="c-1")),
        ("event_id_reused", command(event(1, data="other"), command_id="c-1")),
        ("partial_duplicate", command(event(1), event(9), command_id="c-1")),
    ]


def past_with_two_events() -> Past:
    past = Past()
    accepted(past.decide_one(record(0, command(event(1), event(2)))))
    return past


@pytest.mark.parametrize(("reason", "refused"), refused_commands())
def test_row_6_the_same_command_gets_the_same_refusal_again(reason: Reason, refused: dict[str, Any]) -> None:
    past = past_with_two_events()
    first = past.decide_one(record(1, refused))
    past.decide_one(record(2, command(*(event(n) for n in range(20, 25)))))  # version 7 is reached
    again = past.decide_one(record(3, refused))
    assert isinstance(first, Conflict | Rejected)
    assert isinstance(again, Conflict | Rejected)
    assert first.reason == reason
    assert (first.replayed, again.replayed) == (False, True)
    assert (first.offset, again.offset) == (1, 3)
    for field in ("reason", "detail", "stream", "command_id", "tenant", "partition"):
        assert getattr(first, field) == getattr(again, field)


def test_row_6_a_conflict_keeps_the_version_that_it_saw() -> None:
    past = past_with_two_events()
    stale = command(event(9), expected_version=7, command_id="c-1")
    past.decide_one(record(1, stale))
    past.decide_one(record(2, command(event(3))))
    again = past.decide_one(record(3, stale))
    assert isinstance(again, Conflict)
    assert (again.expected_version, again.actual_version) == (7, 2)


@pytest.mark.parametrize(
    "spelt",
    [
        b'{"events":[{"data":{"a" : 2.0},"type":"T"}],"command_id":"c-1","expected_version":5,"stream":"order-42"}',
        b'{"command_id":"c-1","expected_version":5.0,"stream":"order-42",\n"events":[{"data":{"a":20e-1},"type":"T"}]}',
    ],
)
def test_row_6_spelling_does_not_make_another_command(spelt: bytes) -> None:
    past = Past()
    first = command(event(type="T", data={"a": 2}), expected_version=5, command_id="c-1")
    past.decide_one(record(0, first))
    again = past.decide_one(record(1, spelt))
    assert isinstance(again, Conflict)
    assert again.replayed


@pytest.mark.parametrize(
    "changed",
    [
        command(event(9), expected_version=2, command_id="c-1"),
        command(event(8), expected_version=7, command_id="c-1"),
        command(event(), expected_version=7, command_id="c-1"),
        command(event(9, type="Other"), expected_version=7, command_id="c-1"),
        command(event(9, schema_version=2), expected_version=7, command_id="c-1"),
        command(event(9, data={"a": 1}), expected_version=7, command_id="c-1"),
        command(event(9, metadata={"a": 1}), expected_version=7, command_id="c-1"),
        command(event(9), event(10), expected_version=7, command_id="c-1"),
    ],
    ids=str,
)
def test_row_7_another_command_under_a_refused_id_is_rejected(changed: dict[str, Any]) -> None:
    past = past_with_two_events()
    past.decide_one(record(1, command(event(9), expected_version=7, command_id="c-1")))
    outcome = rejected(past.decide_one(record(2, changed)), "command_id_reused")
    assert not outcome.replayed


def test_row_7_does_not_make_the_other_command_the_remembered_one() -> None:
    past = past_with_two_events()
    refused = command(event(9), expected_version=7, command_id="c-1")
    other = command(event(9), command_id="c-1")
    assert many(past.decide(*(record(1 + n, it) for n, it in enumerate([refused, other, refused, other])))) == [
        "wrong_expected_version",
        "command_id_reused",
        "wrong_expected_version",
        "command_id_reused",
    ]


def test_a_command_id_is_remembered_for_its_stream_only() -> None:
    past = Past(rules=Rules(partitions=1), log=Log("default", 0))
    past.decide_one(record(0, command(expected_version=7, command_id="c-1")))
    assert one(past.decide_one(record(1, command(stream="order-43", command_id="c-1")))) == "accepted"


def test_a_changed_command_under_a_new_id_is_accepted_after_a_conflict() -> None:
    past = past_with_two_events()
    past.decide_one(record(1, command(event(9), expected_version=7, command_id="c-1")))
    assert one(past.decide_one(record(2, command(event(9), expected_version=2, command_id="c-2")))) == "accepted"


# --- retention


@pytest.mark.parametrize(("later_ms", "found"), [(1000, "command_id_reused"), (1001, "accepted")])
def test_a_refusal_is_remembered_for_the_retention(later_ms: int, found: str) -> None:
    past = Past(rules=Rules(partitions=PARTITIONS, retention_ms=1000))
    past.decide_one(record(0, command(expected_version=7, command_id="c-1"), timestamp=5000))
    changed = record(1, command(command_id="c-1"), timestamp=5000 + later_ms)
    assert one(past.decide_one(changed)) == found


def test_retention_counts_in_the_logs_time_whatever_the_records_own() -> None:
    past = Past(rules=Rules(partitions=PARTITIONS, retention_ms=1000))
    past.decide_one(record(0, command(expected_version=7, command_id="c-1"), timestamp=5000))
    past.decide_one(record(1, None, timestamp=9000))
    assert one(past.decide_one(record(2, command(command_id="c-1"), timestamp=5000))) == "accepted"


def test_an_answer_from_memory_does_not_prolong_the_retention() -> None:
    past = Past(rules=Rules(partitions=PARTITIONS, retention_ms=1000))
    stale = command(expected_version=7, command_id="c-1")
    outcomes = past.decide(*(record(n, stale, timestamp=5000 + 600 * n) for n in range(3)))
    assert [it.replayed for it in outcomes if isinstance(it, Conflict)] == [False, True, False]


# --- rows 8 to 10: known events


def test_row_8_events_that_are_there_are_a_duplicate_with_their_numbers() -> None:
    past = Past()
    first = accepted(past.decide_one(record(0, command(event(1), event(2), command_id="c-1"))))
    past.decide_one(record(1, command(event(3))))
    again = past.decide_one(record(2, command(event(1), event(2), command_id="c-2")))
    assert again == Duplicate(
        tenant="default",
        partition=LOG.partition,
        offset=2,
        command_id="c-2",
        stream=STREAM,
        first_version=first.first_version,
        last_version=first.last_version,
        first_position=first.first_position,
        last_position=first.last_position,
        event_ids=first.event_ids,
    )


def test_row_8_a_part_of_a_command_and_the_events_of_two_commands_are_duplicates() -> None:
    past = Past()
    past.decide(record(0, command(event(1), event(2))), record(1, command(event(3))))
    part, both = past.decide(record(2, command(event(2))), record(3, command(event(2), event(3))))
    assert isinstance(part, Duplicate)
    assert isinstance(both, Duplicate)
    assert (part.first_version, part.last_version) == (2, 2)
    assert (both.first_version, both.last_version) == (2, 3)


def test_row_8_comes_before_the_expected_version() -> None:
    past = Past()
    create = command(event(1), expected_version="no_stream")
    assert many(past.decide(record(0, create), record(1, create))) == ["accepted", "duplicate"]


SPELLINGS = [
    (b'{"a":1,"b":[true,null]}', b' { "b" : [ true , null ] , "a" : 1 }'),
    (b'{"a":1}', b'{"a":1.0}'),
    (b'{"a":100}', b'{"a":1e2}'),
    (b'{"a":0.1}', b'{"a":1.0E-1}'),
    (b'{"a":0}', b'{"a":-0.0}'),
    (b'{"a":"\xc3\xa9/"}', b'{"a":"\\u00e9\\/"}'),
    (b'{"a":2,"a":1}', b'{"a":1}'),
    (b'{"a":1e400}', b'{"a":10e399}'),
]


def with_data(data: bytes, number: int = 1) -> bytes:
    return b'{"stream":"order-42","events":[{"type":"T","event_id":"%b","data":%b}]}' % (
        event_id(number).encode(),
        data,
    )


@pytest.mark.parametrize(("first", "again"), SPELLINGS)
def test_row_8_spelling_of_the_data_does_not_count(first: bytes, again: bytes) -> None:
    outcomes = Past().decide(record(0, with_data(first)), record(1, with_data(again)))
    assert many(outcomes) == ["accepted", "duplicate"]


@pytest.mark.parametrize(
    ("first", "again"),
    [
        (b'{"a":1}', b'{"a":"1"}'),
        (b'{"a":1}', b'{"a":true}'),
        (b'{"a":9007199254740993}', b'{"a":9007199254740992}'),
        (b'{"a":0.1}', b'{"a":0.10000000000000000001}'),
        (b'{"a":[1,2]}', b'{"a":[2,1]}'),
        (b'{"a":null}', b"{}"),
        (b'{"a":"x"}', b'{"a":"x "}'),
    ],
)
def test_row_9_another_value_in_the_data_counts(first: bytes, again: bytes) -> None:
    outcomes = Past().decide(record(0, with_data(first)), record(1, with_data(again)))
    assert many(outcomes) == ["accepted", "event_id_reused"]


@pytest.mark.parametrize(
    "again",
    [
        command(event(2), event(1)),
        command(event(1), event(3)),
        command(event(1, type="Other"), event(2)),
        command(event(1), event(2, schema_version=2)),
        command(event(1), event(2, metadata={"user": "u-7"})),
        command(event(1, data=1), event(2)),
    ],
    ids=str,
)
def test_row_9_known_ids_with_another_order_place_or_content_are_rejected(again: dict[str, Any]) -> None:
    past = Past()
    past.decide(record(0, command(event(1), event(2), event(3))))
    rejected(past.decide_one(record(1, again)), "event_id_reused")


@pytest.mark.parametrize("events", [(event(1), event(9)), (event(9), event(1)), (event(1), event(9), event(2))])
def test_row_10_known_ids_among_new_ones_are_a_partial_duplicate(events: tuple[dict[str, Any], ...]) -> None:
    past = past_with_two_events()
    rejected(past.decide_one(record(1, command(*events))), "partial_duplicate")


def test_an_event_id_names_one_event_of_its_stream_only() -> None:
    past = Past(rules=Rules(partitions=1), log=Log("default", 0))
    outcomes = past.decide(record(0, command(event(1))), record(1, command(event(1), stream="order-43")))
    assert many(outcomes) == ["accepted", "accepted"]


def test_an_empty_metadata_object_is_none() -> None:
    past = Past()
    plan = past.plan(
        record(0, command(event(1, metadata={}))),
        record(1, command(event(1))),
        record(2, command(event(1, metadata={"a": 1}))),
    )
    assert many([outcome for _, outcome in plan.answers]) == ["accepted", "duplicate", "event_id_reused"]
    assert plan.events[0].metadata == b""


def test_data_may_be_compared_at_the_deepest_level_that_can_be_configured() -> None:
    past = Past(limits=Limits(depth=512))
    deep = b"[" * 509 + b"%d" + b"]" * 509
    sent = [record(0, with_data(deep % 1)), record(1, with_data(b" " + deep % 1)), record(2, with_data(deep % 2))]
    assert many(past.decide(*sent)) == ["accepted", "duplicate", "event_id_reused"]


# --- rows 11 and 12: the expected version


@pytest.mark.parametrize(
    ("expected", "holds_at"),
    [
        ("any", {0, 1, 2}),
        ("no_stream", {0}),
        ("stream_exists", {1, 2}),
        (0, {0}),
        (1, {1}),
        (2, {2}),
        (2**63 - 1, set()),
    ],
)
def test_rows_11_and_12_the_expected_version_decides(expected: int | str, holds_at: set[int]) -> None:
    found = set()
    for version in range(3):
        past = Past()
        for number in range(version):
            past.decide_one(record(number, command(event(number))))
        outcome = past.decide_one(record(version, command(event(9), expected_version=expected)))
        if isinstance(outcome, Conflict):
            assert (outcome.expected_version, outcome.actual_version) == (expected, version)
            assert outcome.reason == "wrong_expected_version"
        else:
            found.add(accepted(outcome).first_version - 1)
    assert found == holds_at


def test_row_12_an_accepted_event_carries_all_that_the_command_and_its_record_said() -> None:
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    document = command(
        event(1, event_id=event_id(1).upper(), type="T", schema_version=3, data=[1], metadata={"user": "u-7"}),
        command_id="c-1",
        correlation_id="k-1",
        causation_id="a-1",
    )
    past = Past()
    past.decide_one(record(4, command(event(7))))
    sent = record(5, document, timestamp=1234, headers=[("other", b""), ("traceparent", traceparent.encode())])
    plan = past.plan(sent)
    (stored,) = plan.events
    assert (stored.stream, stored.version, stored.position, stored.event_id) == (STREAM, 2, 2, event_id(1))
    assert (stored.type, stored.schema_version, stored.data, stored.metadata) == ("T", 3, b"[1]", b'{"user": "u-7"}')
    assert (stored.time_ms, stored.offset) == (1234, 5)
    assert (stored.command_id, stored.correlation_id, stored.causation_id) == ("c-1", "k-1", "a-1")
    assert stored.traceparent == traceparent


def test_data_is_kept_as_the_bytes_that_came() -> None:
    data = b'{"b" :\t1.50, "a":"\\u00e9\xc3\xa9", "a":2}'
    assert Past().plan(record(0, with_data(data))).events[0].data == data


def test_what_is_left_out_takes_its_default() -> None:
    stored = Past().plan(record(0, command(event()))).events[0]
    assert (stored.schema_version, stored.data, stored.metadata) == (1, b"{}", b"")
    assert (stored.command_id, stored.correlation_id, stored.causation_id, stored.traceparent) == (None,) * 4


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"00-00",
        b"00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\n",
        b"\xff" * 55,
    ],
)
def test_a_traceparent_that_is_none_is_not_kept(value: bytes) -> None:
    assert Past().plan(record(0, command(), headers=[("traceparent", value)])).events[0].traceparent is None


# --- derived ids


def test_ids_are_derived_from_the_command_id_and_the_index() -> None:
    outcome = accepted(Past().decide_one(record(0, command(event(), event(3), event(), command_id="c-1"))))
    assert outcome.event_ids == [
        str(uuid5(NAMESPACE, "command:c-1:0")),
        event_id(3),
        str(uuid5(NAMESPACE, "command:c-1:2")),
    ]


def test_ids_are_derived_from_the_place_in_the_log_where_there_is_no_command_id() -> None:
    past = Past(rules=Rules(partitions=1), log=Log("acme", 0))
    outcome = accepted(past.decide_one(record(17, command(event(), event()))))
    assert outcome.event_ids == [str(uuid5(NAMESPACE, f"offset:acme:0:17:{index}")) for index in (0, 1)]


def test_a_new_log_for_an_old_store_derives_other_ids() -> None:
    past = Past(rules=Rules(partitions=1), log=Log("acme", 0))
    past.start_anew()
    outcome = accepted(past.decide_one(record(17, command())))
    assert outcome.event_ids == [str(uuid5(NAMESPACE, "offset:acme:0:17:0:1"))]


def test_a_command_with_an_id_that_is_sent_again_is_a_duplicate() -> None:
    sent = command(event(), event(), command_id="c-1")
    assert many(Past().decide(record(0, sent), record(1, sent))) == ["accepted", "duplicate"]


def test_a_command_without_any_id_that_is_sent_again_is_another_command() -> None:
    assert many(Past().decide(record(0, command()), record(1, command()))) == ["accepted", "accepted"]


# --- time


@pytest.mark.parametrize("timestamp", [None, -1, 253_402_300_800_000, 2**63 - 1])
def test_a_timestamp_that_is_none_is_the_logs_time(timestamp: int | None) -> None:
    past = Past()
    past.decide_one(record(0, command(), timestamp=5000))
    plan = past.plan(record(1, command(), timestamp=timestamp))
    assert plan.events[0].time_ms == 5000
    assert plan.after.log_time_ms == 5000


@pytest.mark.parametrize("timestamp", [0, 253_402_300_799_999])
def test_a_timestamp_from_1970_to_9999_is_the_events_time(timestamp: int) -> None:
    past = Past()
    past.decide_one(record(0, command(), timestamp=5000))
    assert past.plan(record(1, command(), timestamp=timestamp)).events[0].time_ms == timestamp


def test_without_any_timestamp_the_logs_time_is_zero() -> None:
    assert Past().plan(record(0, command(), timestamp=None)).events[0].time_ms == 0


def test_an_older_timestamp_is_the_events_own_and_does_not_turn_the_logs_time_back() -> None:
    past = Past()
    past.decide_one(record(0, command(), timestamp=5000))
    plan = past.plan(record(1, command(), timestamp=4000))
    assert plan.events[0].time_ms == 4000
    assert plan.after.log_time_ms == 5000


# --- the plan


def test_commands_in_one_batch_see_the_effect_of_those_before_them() -> None:
    past = Past()
    outcomes = past.decide(
        record(0, command(event(1), expected_version=0)),
        record(1, command(event(2), expected_version=0, command_id="c-1")),
        record(2, command(event(1), expected_version=0)),
        record(3, command(event(2), expected_version=0, command_id="c-1")),
        record(4, command(event(2), expected_version=1, command_id="c-1")),
        record(5, command(event(2), expected_version=1, command_id="c-2")),
    )
    assert many(outcomes) == [
        "accepted",
        "wrong_expected_version",
        "duplicate",
        "wrong_expected_version",
        "command_id_reused",
        "accepted",
    ]


def test_a_command_is_all_or_nothing() -> None:
    past = past_with_two_events()
    plan = past.plan(record(1, command(event(8), event(9), expected_version=0)), record(2, command(event(1), event(3))))
    assert plan.events == []
    assert plan.heads == {}


def test_the_plan_moves_the_checkpoint_past_its_records() -> None:
    past = Past()
    last = record(6, None, timestamp=6000)
    plan = past.plan(record(3, command(event(1), event(2)), timestamp=5000), record(4, command(event(3))), last)
    assert plan.before.next_offset == 0
    assert plan.after.next_offset == 7
    assert plan.after.next_position == 4
    assert plan.after.streams == 1
    assert plan.after.chain == plan.events[-1].hash
    assert (plan.after.last_offset, plan.after.last_digest) == (6, fingerprint(last))
    assert plan.heads[STREAM].version == 3
    assert [answered.offset for answered, _ in plan.answers] == [3, 4, 6]


def test_streams_are_numbered_in_the_order_in_which_they_begin() -> None:
    past = Past(rules=Rules(partitions=1), log=Log("default", 0))
    past.decide_one(record(0, command(stream="b")))
    plan = past.plan(
        record(1, command(stream="refused", expected_version=1)),
        record(2, command(stream="a")),
        record(3, command(stream="b")),
        record(4, command(stream="c")),
    )
    assert {name: head.number for name, head in plan.heads.items()} == {"a": 2, "b": 1, "c": 3}
    assert plan.after.streams == 3


def test_every_event_is_chained_to_the_one_before() -> None:
    plan = Past().plan(*(record(n, command(event(n, data=n), event(n + 10))) for n in range(3)))
    previous = genesis(LOG)
    for stored in plan.events:
        previous = event_hash(previous, payload_digest(stored.data, stored.metadata), stored)
        assert stored.hash == previous


# --- recall


def test_recall_tells_the_first_acceptance_from_a_later_duplicate() -> None:
    past = Past()
    records = [record(n, command(event(1), command_id="c-1")) for n in range(2)]
    past.decide(*records)
    assert many(past.recall(records)) == ["accepted", "duplicate"]


def test_recall_knows_a_duplicate_that_stands_at_the_offset_of_its_events_in_a_log_before() -> None:
    past = Past()
    sent = record(0, command(event(1)))
    past.decide_one(sent)
    past.start_anew()
    outcome = past.decide_one(sent)
    assert one(outcome) == "duplicate"
    assert past.recall([sent]) == [outcome]


def test_recall_refuses_to_guess() -> None:
    with pytest.raises(Misfit, match="offset 3"):
        past_with_two_events().recall([record(3, command(event(9)))])


def test_recall_refuses_to_guess_the_answer_to_what_is_no_command() -> None:
    with pytest.raises(Misfit, match="offset 3"):
        past_with_two_events().recall([record(3, None)])


# --- what holds for every log

ONE_PARTITION = Log("default", 0)
RULES = Rules(partitions=1, retention_ms=50)

some_events = st.builds(
    lambda number, data, metadata: event(number, data=data, **metadata),
    st.none() | st.integers(0, 5),
    st.sampled_from([1, 1.0, {"a": 1}]),
    st.sampled_from([{}, {"metadata": {}}, {"metadata": {"b": 2}}]),
)
some_commands = st.builds(
    lambda stream, events, fields: command(*events, stream=stream, **fields),
    st.sampled_from(["a", "b"]),
    st.lists(some_events, min_size=1, max_size=3),
    st.fixed_dictionaries(
        {},
        optional={
            "expected_version": st.sampled_from(["any", "no_stream", "stream_exists"]) | st.integers(0, 5),
            "command_id": st.sampled_from(["c-1", "c-2", "c-3"]),
        },
    ),
)
some_values = st.one_of(some_commands, some_commands, some_commands, some_commands, st.sampled_from([None, b"{}"]))
some_logs = st.lists(st.tuples(some_values, st.none() | st.integers(0, 200)), min_size=1, max_size=25).map(
    lambda entries: [record(offset, value, timestamp=time) for offset, (value, time) in enumerate(entries)]
)


def a_past() -> Past:
    return Past(rules=RULES, log=ONE_PARTITION)


@given(some_logs, st.data())
def test_any_split_into_batches_gives_the_same(records: list[SomeRecord], data: st.DataObject) -> None:
    whole, split = a_past(), a_past()
    plan = whole.plan(*records)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(records)))) | {0, len(records)})
    plans: list[Plan] = [split.plan(*records[begin:end]) for begin, end in pairwise(cuts)]
    assert [it for part in plans for it in part.events] == plan.events
    assert [it for part in plans for it in part.refused] == plan.refused
    assert [it for part in plans for it in part.answers] == plan.answers
    assert plans[-1].after == plan.after
    assert split.heads == whole.heads


@given(some_logs)
def test_recall_gives_each_offset_the_outcome_that_it_was_given(records: list[SomeRecord]) -> None:
    past = a_past()
    outcomes = past.decide(*records)
    assert past.recall(records) == outcomes


def expected_holds(expected: int | str, version: int) -> bool:
    return {"any": True, "no_stream": version == 0, "stream_exists": version > 0}.get(
        str(expected), expected == version
    )


@given(some_logs)
@settings(max_examples=200)
def test_outcomes_agree_with_a_dict_of_streams(records: list[SomeRecord]) -> None:
    streams: dict[str, list[str]] = {"a": [], "b": []}
    position = 0
    for sent, outcome in a_past().plan(*records).answers:
        if isinstance(outcome, Accepted | Duplicate):
            document = json.loads(sent.value or b"")
            ids = outcome.event_ids
            assert len(ids) == len(set(ids)) == len(document["events"])
            stream = streams[outcome.stream]
            if isinstance(outcome, Accepted):
                assert expected_holds(document.get("expected_version", "any"), len(stream))
                assert not set(ids) & set(stream)
                assert (outcome.first_version, outcome.last_version) == (len(stream) + 1, len(stream) + len(ids))
                assert (outcome.first_position, outcome.last_position) == (position + 1, position + len(ids))
                stream += ids
                position += len(ids)
            assert stream[outcome.first_version - 1 : outcome.last_version] == ids
        elif isinstance(outcome, Conflict) and not outcome.replayed:
            assert outcome.actual_version == len(streams[str(outcome.stream)])
            assert not expected_holds(outcome.expected_version, outcome.actual_version)


@given(some_logs)
def test_of_all_commands_with_one_exact_version_at_most_one_is_accepted(records: list[SomeRecord]) -> None:
    winners: set[tuple[str, int]] = set()
    for sent, outcome in a_past().plan(*records).answers:
        if isinstance(outcome, Accepted):
            expected = json.loads(sent.value or b"").get("expected_version")
            if isinstance(expected, int):
                assert (outcome.stream, expected) not in winners
                winners.add((outcome.stream, expected))


@given(some_logs)
def test_versions_and_positions_have_no_gap(records: list[SomeRecord]) -> None:
    past = a_past()
    past.decide(*records)
    assert [stored.position for stored in past.events] == list(range(1, len(past.events) + 1))
    for stream in ("a", "b"):
        versions = [stored.version for stored in past.events if stored.stream == stream]
        assert versions == list(range(1, len(versions) + 1))
        assert (past.heads[stream].version if stream in past.heads else 0) == len(versions)


@given(some_logs)
def test_every_record_is_answered_once_and_in_order(records: list[SomeRecord]) -> None:
    answers = a_past().plan(*records).answers
    assert [answered for answered, _ in answers] == records
    assert [outcome.offset for _, outcome in answers] == [sent.offset for sent in records]
