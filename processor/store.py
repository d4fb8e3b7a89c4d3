"""What the pipeline asks of a store. One contract, kept by every store in `stores/`.

A store keeps, for every log, the checkpoint, the streams' heads, the events and the refused commands. All that
`commit` writes for a log becomes visible at once or not at all. A store raises `errors.StoreUnreachable` where it does
not know how a transaction ended; who called reads the checkpoint again and never guesses.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from enum import Enum
from typing import Protocol

from msgspec import Struct

from processor.messages import Checkpoint, Log, Plan, RecordedEvent, View, Wanted


class Committed(Enum):
    """How the commit of one log's plan ended."""

    YES = "yes"
    FENCED = "fenced"
    """Another owner has claimed the log since, or it moved: the plan is void."""
    BUSY = "busy"
    """Someone holds the log's checkpoint row now: the plan still stands, try again in the next cycle."""
    TAKEN = "taken"
    """Of this plan, or of one beside it, an event id is in its stream already: look the ids up and decide again."""


class Usage(Struct, frozen=True):
    """What a store takes: bytes on its disk, and how many of how many connections are in use now."""

    bytes: int
    connections_used: int
    connections: int


class StreamInfo(Struct, frozen=True):
    """A stream as listings show it."""

    log: Log
    stream: str
    version: int


class Store(Protocol):
    """See the module's docstring. Every method may be called at any time between `open` and `close`."""

    @property
    def durable(self) -> bool:
        """Whether what was committed survives the process; if not, a log is rebuilt from its commands."""
        ...

    async def open(self) -> None:
        """Connect, and check that the schema and the number of partitions are the ones that this code was opened with.

        Raises `SchemaMismatch`, `StoreInUse`, `StoreUnreachable`.
        """
        ...

    async def close(self) -> None:
        """Let go of everything. Never fails, and may be called twice."""
        ...

    async def examine(self) -> Usage:
        """Answer, and look at the schema again. Raises `SchemaMismatch`, `StoreUnreachable`."""
        ...

    # --- the writer's side

    async def claim(self, logs: Sequence[Log]) -> dict[Log, Checkpoint]:
        """Become the owner: raise each log's epoch by one, and return the checkpoints. A new log gets its first one."""
        ...

    async def refused_ids(self, logs: Sequence[Log], limit: int) -> dict[Log, set[str] | None]:
        """The command ids by which refusals are remembered; None for a log that has more than `limit`."""
        ...

    async def load(self, wanted: Mapping[Log, Wanted]) -> dict[Log, View]:
        """What is known of the wanted streams, event ids and commands; one view per log asked for."""
        ...

    def staged(self, plans: Sequence[Plan]) -> AbstractContextManager[None]:
        """Meanwhile, do of the `commit` of these plans what does not depend on the commits before it.

        To be entered in the order of the commits. On leaving it nothing is there of what was not committed.
        """
        ...

    async def commit(self, plans: Sequence[Plan]) -> dict[Log, Committed]:
        """Write all plans that can be written, in one transaction, each if its log still stands at `plan.before`.

        That is: same epoch, same next offset. At most one plan per log. The plans of fenced, busy and taken logs leave
        no trace; the first two do not hold up the others. What is acknowledged stays as it is, unless a plan begins a
        new incarnation.
        """
        ...

    async def acknowledge(self, acknowledged: Mapping[Log, Checkpoint]) -> None:
        """Raise the acknowledged offset and position to the given checkpoints', where the epoch is still theirs.

        Never waits for a log that someone holds: it is left as it is.
        """
        ...

    async def forget_refused(self, log: Log, before_log_time_ms: int, limit: int) -> int:
        """Delete up to `limit` refusals decided before a log time, and acknowledged; return how many went."""
        ...

    # --- the readers' side

    async def checkpoints(self) -> dict[Log, Checkpoint]:
        """Every log's checkpoint, in the order of the logs."""
        ...

    async def read_log(self, log: Log, after_position: int, limit: int) -> list[RecordedEvent]:
        """Events of a log in position order, none above the watermark."""
        ...

    async def read_stream(self, log: Log, stream: str, after_version: int, limit: int) -> list[RecordedEvent]:
        """Events of a stream in version order; empty where there is no such stream."""
        ...

    async def streams(self, log: Log, after_number: int, limit: int) -> list[tuple[int, StreamInfo]]:
        """Streams of a log with their numbers, in the order in which they began."""
        ...
