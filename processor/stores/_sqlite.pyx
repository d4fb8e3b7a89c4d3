# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Plans' events as the values of SQLite's rows, as `sqlite.event_lists` makes them, of which a test sees to it."""

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_FromStringAndSize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.list cimport PyList_New, PyList_SET_ITEM
from cpython.ref cimport Py_INCREF

from processor._uuid cimport UUID_BYTES, uuid_bytes
from processor.messages cimport Head, RecordedEvent

cdef enum:
    COLUMNS = 17

cdef object _NULL = float("nan")


cdef inline bytearray _blob(bytes value):
    return PyByteArray_FromStringAndSize(PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))


cdef bytearray _id_blob(str event_id):
    cdef bytearray blob = PyByteArray_FromStringAndSize(NULL, UUID_BYTES)
    uuid_bytes(event_id, <unsigned char *>PyByteArray_AS_STRING(blob))
    return blob


cdef inline object _or_null(value):
    return value if value is not None and value else _NULL


cdef inline Py_ssize_t _put(list values, Py_ssize_t index, object value):
    """Set an item of a list whose items are not set yet; returns the index of the next."""
    Py_INCREF(value)
    PyList_SET_ITEM(values, index, value)
    return index + 1


cdef Py_ssize_t _put_event(list values, Py_ssize_t index, tenant, partition, dict heads, RecordedEvent event) except -1:
    index = _put(values, index, tenant)
    index = _put(values, index, partition)
    index = _put(values, index, event.position)
    index = _put(values, index, (<Head?>heads[event.stream]).number)
    index = _put(values, index, event.version)
    index = _put(values, index, event.offset)
    index = _put(values, index, event.time_ms)
    index = _put(values, index, event.schema_version)
    index = _put(values, index, _id_blob(event.event_id))
    index = _put(values, index, _blob(event.hash))
    index = _put(values, index, event.type)
    index = _put(values, index, _blob(event.data))
    index = _put(values, index, _blob(event.metadata))
    index = _put(values, index, _or_null(event.command_id))
    index = _put(values, index, _or_null(event.correlation_id))
    index = _put(values, index, _or_null(event.causation_id))
    return _put(values, index, _or_null(event.traceparent))


def event_lists(plans, Py_ssize_t most):
    """See `sqlite.event_lists`."""
    cdef list lists = []
    cdef list values = None
    cdef dict heads
    cdef RecordedEvent event
    cdef Py_ssize_t left = sum([len(plan.events) for _, plan in plans])
    cdef Py_ssize_t index = 0, room = 0
    for tenant, plan in plans:
        partition, heads = plan.log.partition, plan.heads
        for event in plan.events:
            if index == room:
                room = COLUMNS * (1 << <Py_ssize_t>(min(left, most) - 1).bit_length())
                values = PyList_New(room)
                lists.append(values)
                left -= most
                index = 0
            index = _put_event(values, index, tenant, partition, heads, event)
    while index < room:
        index = _put(values, index, _NULL)
    return lists
