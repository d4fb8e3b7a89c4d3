"""Batches laid out natively: aiokafka's own, byte for byte."""

import time
from collections.abc import Iterable

import pytest
from aiokafka.producer.message_accumulator import BatchBuilder
from hypothesis import given
from hypothesis import strategies as st

from processor.kafka import batches
from processor.kafka.batches import LaidBatch, batch_of
from processor.kafka.outgoing import Answer, EventRecords, Outgoing, ReplyRecords
from processor.messages import Accepted, Conflict, Log, Outcome, RecordedEvent
from processor.replies import ReplyAddress
from tests.records import SomeRecord

needs_native = pytest.mark.skipif(not batches.NATIVE, reason="the native part was not built, for lack of a C compiler")

_UNCOMPRESSED = 0
_NOW_MS = 1_767_225_600_123
_PRODUCER = (4_711, 3, 2**31 - 2)

_names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=100)
_ids = st.none() | _names
_times = st.integers(0, 253_402_300_799_999)
_counts = st.integers(1, 2**63 - 1)
# Lengths on both sides of where a varint takes a byte more.
_payloads = st.sampled_from([b"{}", b"1" * 63, b"1" * 64, b"1" * 8_191, b"1" * 8_192])
_metadata = st.sampled_from([b"", b'{"a":"\xc3\xa9"}', b'{\n\t"a": 1}'])
_events = st.builds(
    RecordedEvent,
    stream=_names, version=_counts, position=_counts, event_id=_names, type=_names,
    schema_version=st.integers(1, 2**31 - 1), data=_payloads, metadata=_metadata, time_ms=_times, offset=st.just(0),
    command_id=_ids, correlation_id=_ids, causation_id=_ids, traceparent=_ids, hash=st.just(bytes(32)),
)  # fmt: skip


_echoed = st.lists(st.tuples(st.sampled_from(["correlation_id", "kafka_correlationId"]), _payloads), max_size=2)
_outcomes: st.SearchStrategy[Outcome] = st.one_of(
    st.builds(
        Accepted, offset=_counts, command_id=_ids, stream=_names, first_version=_counts, last_version=_counts,
        first_position=_counts, last_position=_counts, event_ids=st.lists(_names, max_size=3),
    ),
    st.builds(
        Conflict, offset=_counts, command_id=_ids, stream=_names, reason=st.just("version"), detail=_names,
        expected_version=_counts, actual_version=_counts,
    ),
)  # fmt: skip
_answers: st.SearchStrategy[Answer] = st.tuples(
    st.builds(SomeRecord, _counts, st.none(), st.none() | _payloads, st.none(), st.just(())),
    _outcomes,
    st.builds(lambda echoed: ReplyAddress(echoed=tuple(echoed)), _echoed),
)


def laid_out(records: Iterable[Outgoing]) -> LaidBatch:
    batch = batch_of(records, None)
    assert isinstance(batch, LaidBatch)
    return batch


def by_aiokafka(records: Iterable[Outgoing]) -> BatchBuilder:
    batch = BatchBuilder(2**30, _UNCOMPRESSED)
    for key, value, headers, given_ms in records:
        timestamp = _NOW_MS if given_ms is None else given_ms
        assert batch.append(key=key, value=value, timestamp=timestamp, headers=headers) is not None
    return batch


def check_filled(ours: LaidBatch, records: list[Outgoing], most: int) -> None:
    """As many records as there is room for, the first one in any case; aiokafka's own look can be a byte too strict."""
    count = ours.record_count()
    assert 0 < count <= len(records)
    theirs = by_aiokafka(records[:count])
    assert (ours.size(), built(ours)) == (theirs.size(), built(theirs))
    assert count == 1 or ours.size() <= most
    assert count == len(records) or by_aiokafka(records[: count + 1]).size() > most


def built(batch: BatchBuilder) -> bytes:
    batch._set_producer_state(*_PRODUCER)
    return bytes(batch._build())


@needs_native
@given(st.builds(Log, _names, st.just(7)), st.lists(_events, min_size=1, max_size=20))
def test_a_batch_laid_out_natively_is_what_aiokafka_builds(log: Log, events: list[RecordedEvent]) -> None:
    ours, theirs = laid_out(EventRecords(log, events)), by_aiokafka(EventRecords(log, events))
    assert (ours.size(), ours.record_count()) == (theirs.size(), theirs.record_count())
    assert built(ours) == built(theirs)


@needs_native
@given(st.lists(_events, min_size=1, max_size=20), st.integers(0, 40_000))
def test_a_batch_takes_as_many_events_as_there_is_room_for(events: list[RecordedEvent], most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "BATCH_BYTES", most)
        ours = laid_out(EventRecords(Log("t", 7), events))
    check_filled(ours, list(EventRecords(Log("t", 7), events)), most)


@needs_native
@given(st.lists(_answers, min_size=1, max_size=20), st.integers(0, 40_000), st.integers(64, 16_000))
def test_replies_laid_out_natively_are_what_aiokafka_builds(answers: list[Answer], most: int, room_bytes: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "BATCH_BYTES", most)
        patch.setattr(time, "time", lambda: _NOW_MS / 1000)
        ours = laid_out(ReplyRecords(room_bytes, iter(answers)))
    check_filled(ours, list(ReplyRecords(room_bytes, iter(answers))), most)


@needs_native
def test_a_batch_that_is_sent_again_keeps_its_bytes() -> None:
    batch = laid_out(EventRecords(Log("t", 7), [_event()]))
    first = built(batch)
    assert bytes(batch._build()) == first
    assert batch.closed()


def test_what_is_compressed_or_no_event_is_built_by_aiokafka() -> None:
    records = EventRecords(Log("t", 7), [_event()])
    assert type(batch_of(records, "gzip")) is BatchBuilder
    assert type(batch_of(iter(records), None)) is BatchBuilder


def _event() -> RecordedEvent:
    return RecordedEvent("s", 1, 1, "id", "T", 1, b"{}", b"", 0, 0, None, None, None, None, bytes(32))
