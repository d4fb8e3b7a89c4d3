# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The records of feed and replies as the bytes of a batch, without the Python objects in between, and their price.

Byte for byte what `outgoing` comes to in aiokafka's builder, of which a test sees to it. The layout is that
of Kafka's record batch, version 2: https://kafka.apache.org/documentation/#recordbatch
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport int64_t, uint64_t

from processor._buffer cimport Buffer
from processor.messages cimport RecordedEvent

from processor.codec import encode_outcome, event_source, on_one_line, rfc3339
from processor.kafka.outgoing import reply_record

cdef enum:
    BATCH_HEADER_BYTES = 61
    VARINT_BYTES = 10
    DIGITS = 20
    ABSENT = -1


@cython.final
cdef class _Parts(Buffer):
    """The parts of a record. `varint` relies on `need`."""

    cdef inline void varint(self, int64_t number) noexcept:
        cdef uint64_t left = (<uint64_t>number << 1) ^ <uint64_t>(number >> 63)
        while left > 0x7F:
            self.start[self.size] = <char>(0x80 | (left & 0x7F))
            self.size += 1
            left >>= 7
        self.start[self.size] = <char>left
        self.size += 1

    cdef inline int sized(self, const char *source, Py_ssize_t size) except -1:
        """A length and so many bytes."""
        self.need(size + VARINT_BYTES)
        self.varint(size)
        self.raw(source, size)
        return 0

    cdef inline int data(self, bytes value) except -1:
        return self.sized(PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))

    cdef inline int data_or_null(self, bytes value) except -1:
        if value is not None:
            return self.data(value)
        self.need(VARINT_BYTES)
        self.varint(ABSENT)
        return 0

    cdef inline int begin(self, int64_t time_delta, int64_t offset_delta) except -1:
        """A record, from its beginning."""
        self.size = 0
        self.need(1 + 2 * VARINT_BYTES)
        self.raw("\0", 1)
        self.varint(time_delta)
        self.varint(offset_delta)
        return 0

    cdef inline bint add(self, _Parts record, Py_ssize_t batch_bytes, bint is_first) except -1:
        """A record, unless a batch of so many bytes has no room for it; the first one in any case."""
        cdef Py_ssize_t before = self.size
        self.sized(record.start, record.size)
        if not is_first and BATCH_HEADER_BYTES + self.size > batch_bytes:
            self.size = before
            return False
        return True

    cdef inline int text(self, str value) except -1:
        cdef Py_ssize_t size
        cdef const char *utf8 = PyUnicode_AsUTF8AndSize(value, &size)
        return self.sized(utf8, size)

    cdef inline int number(self, int64_t value) except -1:
        """In decimal digits; not negative."""
        cdef char digits[DIGITS]
        cdef Py_ssize_t first = DIGITS
        while True:
            first -= 1
            digits[first] = <char>(c'0' + value % 10)
            value //= 10
            if value == 0:
                return self.sized(digits + first, DIGITS - first)

    cdef inline int laid(self, bytes parts) except -1:
        """What is laid out already."""
        self.need(PyBytes_GET_SIZE(parts))
        self.raw(PyBytes_AS_STRING(parts), PyBytes_GET_SIZE(parts))
        return 0

    cdef inline int laid_if(self, bytes name, value) except -1:
        """A header where there is a value; returns how many that are."""
        if value is None:
            return 0
        self.laid(name)
        self.text(value)
        return 1


cdef bytes _parts(values):
    cdef _Parts buffer = _Parts()
    for value in values:
        buffer.data(value)
    return buffer.start[:buffer.size]


cdef bytes _FIRST = _parts((b"ce_specversion", b"1.0", b"ce_id"))
cdef bytes _SOURCE = _parts((b"ce_source",))
cdef bytes _TYPE = _parts((b"ce_type",))
cdef bytes _SUBJECT = _parts((b"ce_subject",))
cdef bytes _TIME = _parts((b"ce_time",))
cdef bytes _STREAM_VERSION = _parts((b"content-type", b"application/json", b"ce_streamversion"))
cdef bytes _POSITION = _parts((b"ce_position",))
cdef bytes _SCHEMA_VERSION = _parts((b"ce_schemaversion",))
cdef bytes _CORRELATION_ID = _parts((b"ce_correlationid",))
cdef bytes _CAUSATION_ID = _parts((b"ce_causationid",))
cdef bytes _COMMAND_ID = _parts((b"ce_commandid",))
cdef bytes _METADATA = _parts((b"ce_metadata",))
cdef bytes _TRACEPARENT = _parts((b"traceparent",))
cdef int _ALWAYS = 11


@cython.final
cdef class _Layout:
    """The headers of one event after another of a tenant."""

    cdef str tenant
    cdef bytes laid_tenant
    cdef _Parts headers
    cdef bytes time
    cdef int64_t seconds

    def __cinit__(self, str tenant):
        self.tenant = tenant
        self.laid_tenant = _parts((b"ce_tenant", tenant.encode()))
        self.headers = _Parts()
        self.time = None

    cdef int lay(self, RecordedEvent event, str stream, int64_t time_ms) except -1:
        """Put the event's headers into `headers`; returns how many there are."""
        cdef _Parts headers = self.headers
        cdef bytes metadata = event.metadata
        cdef int count = _ALWAYS
        headers.size = 0
        headers.laid(_FIRST)
        headers.text(event.event_id)
        headers.laid(_SOURCE)
        headers.data(event_source(self.tenant, stream))
        headers.laid(_TYPE)
        headers.text(event.type)
        headers.laid(_SUBJECT)
        headers.text(stream)
        headers.laid(_TIME)
        self.lay_time(time_ms)
        headers.laid(_STREAM_VERSION)
        headers.number(event.version)
        headers.laid(_POSITION)
        headers.number(event.position)
        headers.laid(_SCHEMA_VERSION)
        headers.number(event.schema_version)
        headers.laid(self.laid_tenant)
        count += headers.laid_if(_CORRELATION_ID, event.correlation_id)
        count += headers.laid_if(_CAUSATION_ID, event.causation_id)
        count += headers.laid_if(_COMMAND_ID, event.command_id)
        if metadata:
            headers.laid(_METADATA)
            headers.data(on_one_line(metadata))
            count += 1
        return count + headers.laid_if(_TRACEPARENT, event.traceparent)

    cdef int lay_time(self, int64_t time_ms) except -1:
        """The text is made once a second: its last digits, before the Z, are the milliseconds."""
        cdef _Parts headers = self.headers
        cdef int64_t seconds = time_ms // 1000
        cdef int rest = time_ms % 1000
        cdef char *digits
        if time_ms < 0:
            headers.data(rfc3339(time_ms).encode())
            return 0
        if self.time is None or seconds != self.seconds:
            self.time = rfc3339(seconds * 1000).encode()
            self.seconds = seconds
        headers.data(self.time)
        digits = headers.start + headers.size - 4
        digits[0] = <char>(c'0' + rest // 100)
        digits[1] = <char>(c'0' + rest // 10 % 10)
        digits[2] = <char>(c'0' + rest % 10)
        return 0


def lay_out(str tenant, events, Py_ssize_t batch_bytes):
    """The records of as many events as a batch of so many bytes holds with its header, and at least of one.

    Returns them, how many they are, and the first and the highest of their timestamps in milliseconds.
    """
    cdef _Parts batch = _Parts(), record = _Parts()
    cdef _Layout layout = _Layout(tenant)
    cdef RecordedEvent event
    cdef str stream
    cdef int64_t time_ms, first_ms = 0, last_ms = 0
    cdef Py_ssize_t count = 0
    cdef int headers
    for event in events:
        stream = event.stream
        time_ms = event.time_ms
        if count == 0:
            first_ms = last_ms = time_ms
        headers = layout.lay(event, stream, time_ms)
        record.begin(time_ms - first_ms, count)
        record.text(stream)
        record.data(event.data)
        record.need(VARINT_BYTES + layout.headers.size)
        record.varint(headers)
        record.raw(layout.headers.start, layout.headers.size)
        if not batch.add(record, batch_bytes, count == 0):
            break
        last_ms = max(last_ms, time_ms)
        count += 1
    return PyBytes_FromStringAndSize(batch.start, batch.size), count, first_ms, last_ms


def lay_out_replies(answers, Py_ssize_t room_bytes, int64_t now_ms, Py_ssize_t batch_bytes):
    """The replies to as many commands as a batch of so many bytes holds with its header, and at least to one.

    `answers` are records, outcomes and reply addresses. Returns what `lay_out` does.
    """
    cdef _Parts batch = _Parts(), record = _Parts()
    cdef bytes key, value
    cdef Py_ssize_t count = 0
    for asked, outcome, address in answers:
        key, value, echoed = asked.key, encode_outcome(outcome), address.echoed
        if echoed or PyBytes_GET_SIZE(value) + (0 if key is None else PyBytes_GET_SIZE(key)) > room_bytes:
            key, value, echoed, _ = reply_record(asked, outcome, list(echoed), room_bytes)
        record.begin(0, count)
        record.data_or_null(key)
        record.data(value)
        record.need(VARINT_BYTES)
        record.varint(len(echoed))
        for name, text in echoed:
            record.text(name)
            record.data_or_null(text)
        if not batch.add(record, batch_bytes, count == 0):
            break
        count += 1
    return PyBytes_FromStringAndSize(batch.start, batch.size), count, now_ms, now_ms
