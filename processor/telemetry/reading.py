"""Where the worker's logs and its store stand: what is looked at, not counted."""

from collections.abc import Sequence

from msgspec import Struct

from processor.messages import Log
from processor.store import Usage


class LogReading(Struct, frozen=True):
    """Where a log stands that this worker runs.

    lag: commands on the broker that are not decided; None while the broker has not said. behind_s: how old the last
    decided command is, where others wait. feed_backlog, reply_backlog: events and commands that are committed and
    whose publication is not acknowledged yet.
    """

    log: Log
    epoch: int
    watermark: int
    lag: int | None
    behind_s: float
    feed_backlog: int
    reply_backlog: int


class Reading(Struct, frozen=True):
    """All that is looked at. states: logs by state. store: None where it does not answer, or has not been asked."""

    states: dict[str, int]
    logs: Sequence[LogReading]
    store: Usage | None
