# Where msgspec keeps the fields of these types, for what is compiled: a field is one look into memory then, and not one
# for its name. CPython lays slots out in the order of their names; `_messages` sees to it that it is so.

cdef extern from *:
    """
    typedef struct {
        PyObject_HEAD
        PyObject *causation_id, *command_id, *correlation_id, *events, *expected_version, *stream;
    } TidemarkCommand;

    typedef struct {
        PyObject_HEAD
        PyObject *data, *event_id, *metadata, *schema_version, *type;
    } TidemarkNewEvent;

    typedef struct {
        PyObject_HEAD
        PyObject *causation_id, *command_id, *correlation_id, *data, *event_id, *hash, *metadata, *offset, *position,
            *schema_version, *stream, *time_ms, *traceparent, *type, *version;
    } TidemarkRecordedEvent;

    typedef struct {
        PyObject_HEAD
        PyObject *data, *metadata, *offset, *position, *schema_version, *type, *version;
    } TidemarkKnownEvent;

    typedef struct {
        PyObject_HEAD
        PyObject *number, *version;
    } TidemarkHead;

    typedef struct {
        PyObject_HEAD
        PyObject *asked, *heads, *known, *presumed_new, *refused, *refused_at;
    } TidemarkView;
    """

    ctypedef class processor.messages.Command [object TidemarkCommand, check_size error]:
        cdef object causation_id
        cdef object command_id
        cdef object correlation_id
        cdef object events
        cdef object expected_version
        cdef object stream

    ctypedef class processor.messages.NewEvent [object TidemarkNewEvent, check_size error]:
        cdef object data
        cdef object event_id
        cdef object metadata
        cdef object schema_version
        cdef object type

    ctypedef class processor.messages.RecordedEvent [object TidemarkRecordedEvent, check_size error]:
        cdef object causation_id
        cdef object command_id
        cdef object correlation_id
        cdef object data
        cdef object event_id
        cdef object hash
        cdef object metadata
        cdef object offset
        cdef object position
        cdef object schema_version
        cdef object stream
        cdef object time_ms
        cdef object traceparent
        cdef object type
        cdef object version

    ctypedef class processor.messages.KnownEvent [object TidemarkKnownEvent, check_size error]:
        cdef object data
        cdef object metadata
        cdef object offset
        cdef object position
        cdef object schema_version
        cdef object type
        cdef object version

    ctypedef class processor.messages.Head [object TidemarkHead, check_size error]:
        cdef object number
        cdef object version

    ctypedef class processor.messages.View [object TidemarkView, check_size error]:
        cdef object asked
        cdef dict heads
        cdef dict known
        cdef set presumed_new
        cdef dict refused
        cdef dict refused_at
