# cython: language_level=3
"""Whether the fields of messages are where `messages.pxd` has them; importing this fails where they are not.

The sizes of the types have been compared when this runs, so that a field that is misplaced is another one's.
"""

from msgspec.structs import asdict

from processor.messages cimport Command, Head, KnownEvent, NewEvent, RecordedEvent, View


def _made(kind):
    # No two of the values are the same.
    return kind(*({number} for number in range(len(kind.__struct_fields__))))


cdef dict _command(Command it):
    return {
        "causation_id": it.causation_id, "command_id": it.command_id, "correlation_id": it.correlation_id,
        "events": it.events, "expected_version": it.expected_version, "stream": it.stream,
    }


cdef dict _new_event(NewEvent it):
    return {
        "data": it.data, "event_id": it.event_id, "metadata": it.metadata, "schema_version": it.schema_version,
        "type": it.type,
    }


cdef dict _recorded_event(RecordedEvent it):
    return {
        "causation_id": it.causation_id, "command_id": it.command_id, "correlation_id": it.correlation_id,
        "data": it.data, "event_id": it.event_id, "hash": it.hash, "metadata": it.metadata, "offset": it.offset,
        "position": it.position, "schema_version": it.schema_version, "stream": it.stream, "time_ms": it.time_ms,
        "traceparent": it.traceparent, "type": it.type, "version": it.version,
    }


cdef dict _known_event(KnownEvent it):
    return {
        "data": it.data, "metadata": it.metadata, "offset": it.offset, "position": it.position,
        "schema_version": it.schema_version, "type": it.type, "version": it.version,
    }


cdef dict _head(Head it):
    return {"number": it.number, "version": it.version}


cdef dict _view(View it):
    return {
        "asked": it.asked, "heads": it.heads, "known": it.known, "presumed_new": it.presumed_new,
        "refused": it.refused, "refused_at": it.refused_at,
    }


def _check():
    cdef object command = _made(Command), new_event = _made(NewEvent), recorded_event = _made(RecordedEvent)
    cdef object known_event = _made(KnownEvent), head = _made(Head), view = _made(View)
    for one, found in (
        (command, _command(command)), (new_event, _new_event(new_event)), (head, _head(head)), (view, _view(view)),
        (recorded_event, _recorded_event(recorded_event)), (known_event, _known_event(known_event)),
    ):
        if found != asdict(one):
            raise RuntimeError(
                f"the native part was built for another layout of {type(one).__name__}: install Tidemark again, "
                "from source, or with TIDEMARK_NATIVE=0"
            )


_check()
