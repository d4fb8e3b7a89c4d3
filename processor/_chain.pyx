# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The events of an accepted command and their hashes, as `chain.recorded` makes them, of which a test sees to it.

What is hashed goes straight to the SHA-256 that hashlib has, libcrypto's, without texts and hash objects in between.
Importing this fails where hashlib has another one; `chain` does without then.
"""

import ctypes

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport int64_t, uint64_t, uintptr_t
from libc.string cimport memcpy

from processor.messages cimport Command, NewEvent

import processor._messages  # whose import is the check
from processor.content import metadata_or_empty
from processor.messages import NO_METADATA, RecordedEvent

cdef enum:
    HASH_BYTES = 32
    ROOM_BYTES = 1024
    DIGITS = 20

ctypedef void *(*_New)() noexcept
ctypedef void *(*_Fetch)(void *library, const char *name, const char *properties) noexcept
ctypedef int (*_Begin)(void *context, const void *kind, void *engine) noexcept
ctypedef int (*_Update)(void *context, const void *data, size_t size) noexcept
ctypedef int (*_End)(void *context, unsigned char *digest, unsigned int *size) noexcept

cdef _New _new
cdef _Fetch _fetch
cdef _Begin _begin
cdef _Update _update
cdef _End _end


cdef uintptr_t _address(library, str name) except 0:
    return ctypes.cast(getattr(library, name), ctypes.c_void_p).value


try:
    import _hashlib

    _library = ctypes.CDLL(_hashlib.__file__)
    _new = <_New>_address(_library, "EVP_MD_CTX_new")
    _fetch = <_Fetch>_address(_library, "EVP_MD_fetch")
    _begin = <_Begin>_address(_library, "EVP_DigestInit_ex")
    _update = <_Update>_address(_library, "EVP_DigestUpdate")
    _end = <_End>_address(_library, "EVP_DigestFinal_ex")
except (AttributeError, OSError) as error:
    raise ImportError(f"hashlib's SHA-256 is not libcrypto's: {error}") from error

cdef bytes _HEX = b"0123456789abcdef"
cdef const char *_hex = _HEX
# Used with the interpreter's lock held, from its beginning to its end: one is enough.
cdef void *_context = _new()
cdef const void *_kind = _fetch(NULL, "SHA256", NULL)
if _context == NULL or _kind == NULL:
    raise ImportError("libcrypto has no SHA-256")


cdef class _Text:
    """What is to be hashed, gathered in short pieces."""

    cdef char room[ROOM_BYTES]
    cdef Py_ssize_t size

    cdef inline int begin(self) except -1:
        self.size = 0
        if not _begin(_context, _kind, NULL):
            raise MemoryError
        return 0

    cdef int flush(self) except -1:
        if not _update(_context, self.room, self.size):
            raise MemoryError
        self.size = 0
        return 0

    cdef inline int add(self, const char *source, Py_ssize_t size) except -1:
        if size > ROOM_BYTES - self.size:
            self.flush()
            if size > ROOM_BYTES:
                if not _update(_context, source, size):
                    raise MemoryError
                return 0
        memcpy(self.room + self.size, source, size)
        self.size += size
        return 0

    cdef inline int data(self, bytes value) except -1:
        return self.add(PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))

    cdef inline int hex(self, const unsigned char *value) except -1:
        """The digits of a hash."""
        cdef char digits[2 * HASH_BYTES]
        cdef int index
        for index in range(HASH_BYTES):
            digits[2 * index] = _hex[value[index] >> 4]
            digits[2 * index + 1] = _hex[value[index] & 15]
        return self.add(digits, 2 * HASH_BYTES)

    cdef inline int number(self, int64_t value) except -1:
        """In decimal digits; not negative."""
        cdef char digits[DIGITS]
        cdef Py_ssize_t first = DIGITS
        while True:
            first -= 1
            digits[first] = <char>(c'0' + value % 10)
            value //= 10
            if value == 0:
                return self.add(digits + first, DIGITS - first)

    cdef inline int text(self, str value) except -1:
        cdef Py_ssize_t size
        cdef const char *utf8 = PyUnicode_AsUTF8AndSize(value, &size)
        return self.add(utf8, size)

    cdef inline int line(self) except -1:
        return self.add("\n", 1)

    cdef inline int hash(self, unsigned char *digest) except -1:
        self.flush()
        if not _end(_context, digest, NULL):
            raise MemoryError
        return 0


cdef _Text _text = _Text()


cdef bytes _copied(raw):
    """The text of a part that was not decoded, by itself."""
    cdef Py_buffer view
    PyObject_GetBuffer(raw, &view, PyBUF_SIMPLE)
    try:
        return PyBytes_FromStringAndSize(<char *>view.buf, view.len)
    finally:
        PyBuffer_Release(&view)


cdef int _payload_digest(bytes data, bytes metadata, unsigned char *digest) except -1:
    _text.begin()
    _text.number(PyBytes_GET_SIZE(data))
    _text.line()
    _text.data(data)
    _text.data(metadata)
    return _text.hash(digest)


def recorded(
    bytes previous, Command command, list ids, int64_t version, int64_t position, int64_t time_ms, int64_t offset, traceparent
):
    """See `chain.recorded`."""
    cdef str stream = command.stream
    cdef object command_id = command.command_id or None
    cdef object correlation_id = command.correlation_id or None
    cdef object causation_id = command.causation_id or None
    cdef object time_ = time_ms, offset_ = offset
    cdef unsigned char digest[HASH_BYTES]
    cdef unsigned char chain[HASH_BYTES]
    cdef Py_ssize_t index = 0
    cdef list events = []
    cdef bytes data, metadata
    cdef str event_id, kind
    cdef int64_t schema_version
    cdef NewEvent new
    if previous is None or PyBytes_GET_SIZE(previous) != HASH_BYTES:
        raise ValueError("what is before the events is no hash")
    if len(ids) != len(command.events):
        raise ValueError("each event has one id")
    memcpy(chain, PyBytes_AS_STRING(previous), HASH_BYTES)
    for new in command.events:
        event_id = ids[index]
        kind, schema_version = new.type, new.schema_version
        data = _copied(new.data)
        metadata = b"" if new.metadata is NO_METADATA else metadata_or_empty(new)
        version += 1
        _payload_digest(data, metadata, digest)
        _text.begin()
        _text.hex(chain)
        _text.line()
        _text.hex(digest)
        _text.line()
        _text.number(position)
        _text.line()
        _text.text(stream)
        _text.line()
        _text.number(version)
        _text.line()
        _text.text(event_id)
        _text.line()
        _text.text(kind)
        _text.line()
        _text.number(schema_version)
        _text.line()
        _text.number(time_ms)
        _text.line()
        _text.number(offset)
        _text.line()
        for value in (command_id, correlation_id, causation_id, traceparent):
            if value is not None:
                _text.text(value)
            _text.line()
        _text.hash(chain)
        events.append(
            RecordedEvent(
                stream, version, position, event_id, kind, schema_version, data, metadata, time_, offset_,
                command_id, correlation_id, causation_id, traceparent,
                PyBytes_FromStringAndSize(<char *>chain, HASH_BYTES),
            )
        )
        position += 1
        index += 1
    return events
