# What the variables are where `lookup.py` is compiled, which it is as it stands.

cimport cython

from processor cimport messages


@cython.locals(ids=dict, commands=list, command=messages.Command)
cpdef wanted(log, incarnation, entries, list offsets)
@cython.locals(presumed=set, versions=dict, command=messages.Command, head=messages.Head)
cpdef set presumed_new(heads, entries)
