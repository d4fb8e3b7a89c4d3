from cpython.unicode cimport PyUnicode_GET_LENGTH

cdef extern from "Python.h":
    bint PyUnicode_IS_ASCII(object text)
    const unsigned char *PyUnicode_1BYTE_DATA(object text)

cdef enum:
    UUID_BYTES = 16
    UUID_CHARACTERS = 36


cdef inline unsigned char _digit(unsigned char character) noexcept:
    # Of a hexadecimal digit; letters in either case.
    return (character & 15) + 9 * (character >> 6)


cdef inline int uuid_bytes(str text, unsigned char *to) except -1:
    # An event id, whose form `codec` has seen to, as its 16 bytes.
    cdef const unsigned char *digit
    cdef int index
    if PyUnicode_GET_LENGTH(text) != UUID_CHARACTERS or not PyUnicode_IS_ASCII(text):
        raise ValueError(f"{text!r} is no UUID")
    digit = PyUnicode_1BYTE_DATA(text)
    for index in range(UUID_BYTES):
        if index == 4 or index == 6 or index == 8 or index == 10:
            digit += 1
        to[index] = _digit(digit[0]) << 4 | _digit(digit[1])
        digit += 2
    return 0
