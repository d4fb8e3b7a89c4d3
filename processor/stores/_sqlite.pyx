# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A plan's events as the values of SQLite's rows, as `sqlite.event_values` makes them, of which a test sees to it."""

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_FromStringAndSize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

from processor._uuid cimport UUID_BYTES, uuid_bytes
from processor.messages cimport Head, RecordedEvent

cdef object _NULL = float("nan")


cdef inline bytearray _blob(bytes value):
    return PyByteArray_FromStringAndSize(PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))


cdef bytearray _id_blob(str event_id):
    cdef bytearray blob = PyByteArray_FromStringAndSize(NULL, UUID_BYTES)
    uuid_bytes(event_id, <unsigned char *>PyByteArray_AS_STRING(blob))
    return blob


cdef inline object _or_null(value):
    return value if value is not None and value else _NULL


def event_values(tenant, plan):
    """See `sqlite.event_values`."""
    cdef list values = []
    cdef dict heads = plan.heads
    cdef RecordedEvent event
    partition = plan.log.partition
    for event in plan.events:
        values += (
            tenant,
            partition,
            event.position,
            (<Head?>heads[event.stream]).number,
            event.version,
            event.offset,
            event.time_ms,
            event.schema_version,
            _id_blob(event.event_id),
            _blob(event.hash),
            event.type,
            _blob(event.data),
            _blob(event.metadata),
            _or_null(event.command_id),
            _or_null(event.correlation_id),
            _or_null(event.causation_id),
            _or_null(event.traceparent),
        )
    return values
