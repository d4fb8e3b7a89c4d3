cdef class Buffer:
    cdef char *start
    cdef Py_ssize_t size
    cdef Py_ssize_t room

    cdef int need(self, Py_ssize_t more) except -1

    cdef inline void raw(self, const void *source, Py_ssize_t size) noexcept:
        memcpy(self.start + self.size, source, size)
        self.size += size


cdef extern from "string.h":
    void *memcpy(void *target, const void *source, size_t size) noexcept
