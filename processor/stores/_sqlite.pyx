# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A plan's events as the values of SQLite's rows, as `sqlite.event_values` makes them, of which a test sees to it."""

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_FromStringAndSize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_GET_LENGTH

from processor.messages cimport Head, RecordedEvent

cdef enum:
    ID_BYTES = 16
    ID_CHARACTERS = 36

cdef extern from "Python.h":
    bint PyUnicode_IS_ASCII(object text)
    const unsigned char *PyUnicode_1BYTE_DATA(object text)

cdef object _NULL = float("nan")


cdef inline bytearray _blob(bytes value):
    return PyByteArray_FromStringAndSize(PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))


cdef inline int _digit(unsigned char character) noexcept:
    """Of a hexadecimal digit; letters in either case."""
    return (character & 15) + 9 * (character >> 6)


cdef bytearray _id_blob(str event_id):
    """An event id, which is a UUID (`codec`), as its bytes."""
    cdef bytearray blob = PyByteArray_FromStringAndSize(NULL, ID_BYTES)
    cdef char *bytes_ = PyByteArray_AS_STRING(blob)
    cdef const unsigned char *digit
    cdef int index
    if PyUnicode_GET_LENGTH(event_id) != ID_CHARACTERS or not PyUnicode_IS_ASCII(event_id):
        raise ValueError(f"{event_id!r} is no UUID")
    digit = PyUnicode_1BYTE_DATA(event_id)
    for index in range(ID_BYTES):
        if digit[0] == c'-':
            digit += 1
        bytes_[index] = <char>(_digit(digit[0]) << 4 | _digit(digit[1]))
        digit += 2
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
