"""The records that are published."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from processor.codec import event_headers
from processor.kafka.outgoing import EventRecords
from processor.messages import Log, RecordedEvent

LOG = Log("acme", 7)

_EVENT = RecordedEvent("s", 1, 1, "id", "T", 1, b"{}", b"", 0, 0, None, None, None, None, bytes(32))
_names = st.none() | st.sampled_from(["a", "b"])

# Few values, so that neighbours are often of the same command, or differ in one thing only.
_events = st.lists(
    st.builds(
        lambda **fields: replace(_EVENT, **fields),
        stream=st.sampled_from(["s", "t"]),
        time_ms=st.sampled_from([0, 1]),
        offset=st.sampled_from([0, 1]),
        metadata=st.sampled_from([b"", b'{"a":1}']),
        command_id=_names,
        correlation_id=_names,
        causation_id=_names,
        traceparent=_names,
    )
)


@given(_events)
def test_each_event_has_its_own_headers_whatever_is_before_it(events: list[RecordedEvent]) -> None:
    assert list(EventRecords(LOG, events)) == [
        (event.stream.encode(), event.data, event_headers(LOG, event), event.time_ms) for event in events
    ]
