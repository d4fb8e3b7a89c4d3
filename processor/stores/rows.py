"""Plans as rows for the SQL stores: which columns in which order is that of the tables."""

from collections.abc import Callable
from typing import Any

import msgspec

from processor.messages import Plan

Row = tuple[Any, ...]

_encode = msgspec.json.Encoder().encode


def event_rows(tenant: int, plan: Plan, event_id_as: Callable[[str], Any]) -> list[Row]:
    """A plan's events as rows of `events`."""
    heads, partition = plan.heads, plan.log.partition
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
            event_id_as(event.event_id),
            event.hash,
            event.type,
            event.data,
            event.metadata,
            event.command_id,
            event.correlation_id,
            event.causation_id,
            event.traceparent,
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
