"""Plans and wants as rows for the SQL stores: which columns in which order is that of the tables.

A row of `wanted` begins with tenant and partition; a tenant is told by its number.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from processor.messages import Log, Plan, Wanted

Row = tuple[Any, ...]

_encode = msgspec.json.Encoder().encode


class WantedRows(msgspec.Struct):
    """What is wanted of all logs: (stream, event id or None), (stream, command id) and (offset,), each in its log."""

    known: list[Row]
    commands: list[Row]
    offsets: list[Row]


def wanted_rows(
    wanted: Mapping[Log, Wanted], tenants: Mapping[str, int], event_id_as: Callable[[str], Any]
) -> WantedRows:
    """The rows to look up; `event_id_as` gives an event id as the driver takes it. Unknown tenants have none."""
    rows = WantedRows([], [], [])
    for log, of_log in wanted.items():
        if log.tenant not in tenants:
            continue
        tenant, partition = tenants[log.tenant], log.partition
        rows.known.extend(
            (tenant, partition, stream, event_id and event_id_as(event_id))
            for stream, event_ids in of_log.event_ids.items()
            for event_id in event_ids or (None,)
        )
        rows.commands.extend((tenant, partition, stream, command_id) for stream, command_id in of_log.commands)
        rows.offsets.extend((tenant, partition, offset) for offset in of_log.offsets)
    return rows


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
