# How the decider is laid out where `decide.py` is compiled, which it is as it stands.

cimport cython

from processor cimport messages


cdef class Decider:
    cdef object rules
    cdef object log
    cdef object before
    cdef public messages.View view
    cdef object incarnation
    cdef object next_position
    cdef object streams
    cdef object chain
    cdef object log_time_ms
    cdef dict changed
    cdef list events
    cdef Py_ssize_t remembered
    cdef list refused
    cdef list answers

    cdef _decide(self, record, decoded)
    cdef _by_record(self, record, decoded)
    cdef _misplaced(self, key, stream)
    @cython.locals(ids=list, stored=list)
    cdef _by_state(self, record, messages.Command command, time_ms)
    @cython.locals(known=dict)
    cdef list _stored(self, messages.Command command, list ids)
    cpdef remember(self)
    cdef _refused_before(self, record, messages.Command command)
    @cython.locals(head=messages.Head)
    cdef bint _holds(self, messages.Command command)
    @cython.locals(head=messages.Head, event=messages.RecordedEvent, events=list)
    cdef list _append(self, record, messages.Command command, list ids, time_ms)


@cython.locals(known=dict, event=messages.RecordedEvent)
cpdef learn(messages.View view, list events)
@cython.locals(ids=list, event=messages.NewEvent)
cpdef list event_ids(log, incarnation, record, messages.Command command)
cdef _appended(kind, log, record, messages.Command command, list ids, list events)
@cython.locals(there=messages.KnownEvent)
cdef bint _is_repeat(list events, list stored)
