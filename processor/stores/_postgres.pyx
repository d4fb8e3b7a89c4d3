# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Plans' events as the rows of a binary COPY, the same as those of `rows.event_rows`, of which a test sees to it.

The format: https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.4 (binary), integers in network order.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport int16_t, int32_t, int64_t

from processor._buffer cimport Buffer
from processor._uuid cimport UUID_BYTES, uuid_bytes
from processor.messages cimport Head, RecordedEvent

cdef extern from "arpa/inet.h":
    unsigned int htonl(unsigned int value) noexcept
    unsigned short htons(unsigned short value) noexcept

cdef enum:
    COLUMNS = 17
    NUMBERS_BYTES = 2 + 3 * (4 + 4) + 5 * (4 + 8) + (4 + 16)


cdef class _Rows(Buffer):
    cdef inline void short(self, int16_t value) noexcept:
        cdef unsigned short sent = htons(<unsigned short>value)
        self.raw(&sent, 2)

    cdef inline void plain(self, int32_t value) noexcept:
        cdef unsigned int sent = htonl(<unsigned int>value)
        self.raw(&sent, 4)

    cdef inline void int4(self, int32_t value) noexcept:
        self.plain(4)
        self.plain(value)

    cdef inline void int8(self, int64_t value) noexcept:
        self.plain(8)
        self.plain(<int32_t>(value >> 32))
        self.plain(<int32_t>value)

    cdef int uuid(self, str event_id) except -1:
        cdef unsigned char value[UUID_BYTES]
        uuid_bytes(event_id, value)
        self.plain(UUID_BYTES)
        self.raw(value, UUID_BYTES)
        return 0

    cdef inline int sized(self, const char *value, Py_ssize_t size) except -1:
        self.need(4 + size)
        self.plain(<int32_t>size)
        self.raw(value, size)
        return 0

    cdef inline int bytea(self, bytes value) except -1:
        return self.sized(PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))

    cdef inline int text(self, str value) except -1:
        cdef Py_ssize_t size
        cdef const char *utf8 = PyUnicode_AsUTF8AndSize(value, &size)
        return self.sized(utf8, size)

    cdef inline int text_or_null(self, value) except -1:
        if value is not None and value:
            return self.text(value)
        self.need(4)
        self.plain(-1)
        return 0


def copied(plans):
    """See `postgres.copied`."""
    cdef _Rows rows = _Rows()
    cdef RecordedEvent event
    cdef int32_t tenant, partition
    cdef dict heads
    for tenant, plan in plans:
        partition, heads = plan.log.partition, plan.heads
        for event in plan.events:
            rows.need(NUMBERS_BYTES)
            rows.short(COLUMNS)
            rows.int4(tenant)
            rows.int4(partition)
            rows.int8(event.position)
            rows.int8((<Head?>heads[event.stream]).number)
            rows.int8(event.version)
            rows.int8(event.offset)
            rows.int8(event.time_ms)
            rows.int4(event.schema_version)
            rows.uuid(event.event_id)
            rows.bytea(event.hash)
            rows.text(event.type)
            rows.bytea(event.data)
            rows.bytea(event.metadata)
            rows.text_or_null(event.command_id)
            rows.text_or_null(event.correlation_id)
            rows.text_or_null(event.causation_id)
            rows.text_or_null(event.traceparent)
    return PyBytes_FromStringAndSize(rows.start, rows.size)
