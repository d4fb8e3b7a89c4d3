"""Plans as rows for the SQL stores: which columns in which order is that of the tables."""

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from processor.messages import Plan

Row = tuple[Any, ...]

_encode = msgspec.json.Encoder().encode


class Types(NamedTuple):
    """What a driver takes for an event's id, for bytes, and for null."""

    event_id: Callable[[str], Any]
    blob: Callable[[bytes], Any]
    null: Any


def event_rows(tenant: int, plan: Plan, types: Types) -> list[Row]:
    """A plan's events as rows of `events`."""
    heads, partition = plan.heads, plan.log.partition
    event_id, blob, null = types
    return [
        (
            tenant,
            partition,
            event.position,
            heads[event.stream].number,
            event.version,
            event.offset,
            event.time_ms,
            event.schema_version,
            event_id(event.event_id),
            blob(event.hash),
            event.type,
            blob(event.data),
            blob(event.metadata),
            event.command_id or null,
            event.correlation_id or null,
            event.causation_id or null,
            event.traceparent or null,
        )
        for event in plan.events
    ]


def stream_rows(tenant: int, plan: Plan) -> list[Row]:
    """The streams that a plan begins or appends to, as rows of `streams`."""
    return [(tenant, plan.log.partition, head.number, head.version, name) for name, head in plan.heads.items()]


def refused_rows(tenant: int, plan: Plan) -> list[Row]:
    """A plan's refusals as rows of `refused`."""
    return [
        (
            tenant,
            plan.log.partition,
            plan.after.incarnation,
            refused.offset,
            refused.log_time_ms,
            refused.stream,
            refused.command_id,
            refused.content,
            _encode(refused.outcome),
        )
        for refused in plan.refused
    ]
