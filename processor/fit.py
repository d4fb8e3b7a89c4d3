"""Whether a log and the store belong together. Pure: what was found out goes in, a `Misfit` comes out.

Each sentence names what is wrong and what an operator can choose; nothing is guessed.
"""

from msgspec import Struct

from processor.chain import fingerprint
from processor.errors import Misfit
from processor.messages import Checkpoint, Log, Record

_NEW_LOG = "decide the new one on top of what is stored: `tidemark recover new-log`."
SKIP_DELETED = "Restore the topic or a newer backup of the store, or give them up: `tidemark recover skip-deleted`."
_REBUILD = (
    "Restore a newer backup, or start the worker with --rebuild, which decides the missing commands again from the log "
    "and publishes nothing twice."
)


class Found(Struct, frozen=True):
    """What the broker says of a log.

    begin, end: the first offset there is, and the one after the last. acknowledged: the group's committed offset, None
    without one. feed_position: the position of the last event on the feed, 0 without one.
    """

    begin: int
    end: int
    acknowledged: int | None
    feed_position: int


def check_fit(log: Log, checkpoint: Checkpoint, found: Found, *, rebuilding: bool) -> None:
    """Raise `Misfit` where the store can't be what this log has led to.

    `rebuilding`: the store is known to be behind what was published, and is brought up from the log.
    """
    decided, watermark = checkpoint.next_offset, checkpoint.next_position - 1
    if decided > found.end:
        raise Misfit(
            f"{log}: the store has decided commands up to offset {decided - 1}, but the log ends at {found.end - 1}: "
            f"the commands topic was made anew or has lost records. Restore the topic, or {_NEW_LOG}"
        )
    if decided < found.begin:
        raise Misfit(
            f"{log}: the next command to decide is at offset {decided}, but the log begins at {found.begin}: commands "
            f"were deleted before they were decided. {SKIP_DELETED}"
        )
    if rebuilding:
        return
    if found.feed_position > watermark:
        raise Misfit(
            f"{log}: the feed is at position {found.feed_position}, the store only at {watermark}: the store is new or "
            f"was restored from an older backup. {_REBUILD}"
        )
    if found.acknowledged is not None and found.acknowledged > decided:
        raise Misfit(
            f"{log}: commands up to offset {found.acknowledged - 1} were answered, but the store has decided only "
            f"those below {decided}: it is new or was restored from an older backup. {_REBUILD}"
        )


def check_first_record(log: Log, checkpoint: Checkpoint, record: Record) -> None:
    """Raise `Misfit` where the last decided record is not the one that the store remembers at this offset."""
    if record.offset == checkpoint.last_offset and fingerprint(record) != checkpoint.last_digest:
        raise Misfit(
            f"{log}: the command at offset {record.offset} is not the one that the store has decided: the commands "
            f"topic was made anew. Restore the topic, or {_NEW_LOG}"
        )
