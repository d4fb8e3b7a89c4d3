# cython: language_level=3
"""Bytes that grow at their end."""

from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc


cdef class Buffer:
    """`need` makes room for what `raw` then adds."""

    def __cinit__(self):
        self.room = 1024
        self.start = <char *>PyMem_Malloc(self.room)
        if self.start == NULL:
            raise MemoryError

    def __dealloc__(self):
        PyMem_Free(self.start)

    cdef int need(self, Py_ssize_t more) except -1:
        cdef Py_ssize_t room = self.room
        cdef char *moved
        while room < self.size + more:
            room *= 2
        if room > self.room:
            moved = <char *>PyMem_Realloc(self.start, room)
            if moved == NULL:
                raise MemoryError
            self.start = moved
            self.room = room
        return 0
