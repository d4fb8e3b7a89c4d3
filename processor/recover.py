"""What an operator may choose for a log that does not fit the store, as plans that a store commits. Pure.

A choice changes where the log goes on, never what is stored: events, versions, positions and chain stay as they are.
"""

from msgspec import Struct
from msgspec.structs import replace

from processor.fit import Found
from processor.messages import Checkpoint, Log, Plan


class Choice(Struct, frozen=True):
    """A choice for one log: what it would do, in a sentence, and the plan; without one there is nothing to do."""

    log: Log
    text: str
    plan: Plan | None


def start_anew(log: Log, before: Checkpoint, found: Found) -> Choice:
    """Take the commands topic as it is now for a new log, to be decided from its beginning on top of what is stored.

    Ids that are derived from offsets count the incarnation, so that none is taken twice.
    """
    after = replace(_moved(before, found.begin), acknowledged_offset=found.begin, incarnation=before.incarnation + 1)
    text = f"decide the log from offset {found.begin} on, as a new one behind position {before.next_position - 1}"
    return Choice(log, text, _plan(log, before, after))


def skip_deleted(log: Log, before: Checkpoint, found: Found) -> Choice:
    """Go on with the first command there is, where those before it were deleted undecided."""
    if before.next_offset >= found.begin:
        return Choice(log, "no undecided command was deleted", None)
    count = found.begin - before.next_offset
    text = f"give up {count} undecided commands from offset {before.next_offset} on, go on at {found.begin}"
    return Choice(log, text, _plan(log, before, _moved(before, found.begin)))


def _moved(before: Checkpoint, offset: int) -> Checkpoint:
    """Without the fingerprint of a record that is not there any more."""
    return replace(before, next_offset=offset, last_offset=-1, last_digest=b"")


def _plan(log: Log, before: Checkpoint, after: Checkpoint) -> Plan:
    return Plan(log, before, after, heads={}, events=[], refused=[], answers=[])
