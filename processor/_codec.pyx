# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The commands that a glance is enough for, as they nearly all are: what `codec.decode` says of them, and sooner."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_GET_LENGTH

from processor.messages cimport Command, NewEvent

from msgspec import UNSET, DecodeError

from processor.messages import NO_METADATA

cdef enum:
    ID_CHARACTERS = 36

cdef extern from "Python.h":
    bint PyUnicode_IS_ASCII(object text)
    const unsigned char *PyUnicode_1BYTE_DATA(object text)


cdef bint _is_shallow_ascii(const unsigned char *text, Py_ssize_t size, Py_ssize_t depth) noexcept:
    """Whether there are too few brackets to be nested deeper, wherever they stand, and nothing but ASCII."""
    cdef Py_ssize_t index
    cdef unsigned int brackets = 0
    cdef unsigned char bits = 0
    for index in range(size):
        bits |= text[index]
        # "[" and "{" differ in one bit.
        brackets += (text[index] | 32) == c'{'
    return bits < 128 and brackets <= depth


cdef bint _is_name(str text, Py_ssize_t most):
    """Whether it is printable, and not too long, in UTF-8, by the number of its characters alone."""
    cdef Py_ssize_t size = PyUnicode_GET_LENGTH(text), index
    cdef const unsigned char *characters
    if not 0 < size <= most:
        return False
    if not PyUnicode_IS_ASCII(text):
        return text.isprintable()
    characters = PyUnicode_1BYTE_DATA(text)
    for index in range(size):
        if not 32 <= characters[index] < 127:
            return False
    return True


cdef bint _is_uuid(str text):
    cdef const unsigned char *characters
    cdef unsigned char character
    cdef int index
    if PyUnicode_GET_LENGTH(text) != ID_CHARACTERS or not PyUnicode_IS_ASCII(text):
        return False
    characters = PyUnicode_1BYTE_DATA(text)
    for index in range(ID_CHARACTERS):
        character = characters[index]
        if index == 8 or index == 13 or index == 18 or index == 23:
            if character != c'-':
                return False
        elif not (c'0' <= character <= c'9' or c'a' <= (character | 32) <= c'f'):
            return False
    return True


cdef bint _is_plain(Command command, limits):
    cdef Py_ssize_t most = <Py_ssize_t>limits.name_bytes // 4
    cdef list events = command.events
    cdef NewEvent event
    if not _is_name(command.stream, most):
        return False
    for name in (command.command_id, command.correlation_id, command.causation_id):
        if name is not UNSET and not _is_name(name, most):
            return False
    for event in events:
        if not _is_name(event.type, most):
            return False
        event_id, metadata = event.event_id, event.metadata
        if event_id is not UNSET and not _is_uuid(event_id):
            return False
        if metadata is not NO_METADATA and not bytes(metadata).startswith(b"{"):
            return False
    return 0 < len(events) <= <Py_ssize_t>limits.events


@cython.final
cdef class Decoder:
    """`codec.decode`: `parse` makes a command of JSON, `in_full` is asked about what a glance is not enough for."""

    cdef object parse
    cdef object in_full

    def __init__(self, parse, in_full):
        self.parse = parse
        self.in_full = in_full

    def __call__(self, key, value, limits):
        command = None if value is None else self._plain(key, value, limits)
        return self.in_full(key, value, limits) if command is None else command

    cdef Command _plain(self, bytes key, bytes value, limits):
        """The command, if nothing is wrong with it at a glance."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(value)
        cdef Command command
        if size + (0 if key is None else PyBytes_GET_SIZE(key)) > limits.record_bytes:
            return None
        if not _is_shallow_ascii(<const unsigned char *>PyBytes_AS_STRING(value), size, limits.depth):
            return None
        try:
            command = self.parse(value)
        except (DecodeError, RecursionError):
            return None
        return command if _is_plain(command, limits) else None
