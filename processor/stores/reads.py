"""The readers' queries, the same for both SQL stores. Each is one statement, so it sees one state of the store.

Pages of events are asked of the driver itself: SQLAlchemy's rows would take as long as all else there is to an event.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Dialect, Select, Text, and_, bindparam, select
from sqlalchemy.ext.asyncio import AsyncConnection

from processor.messages import Checkpoint, Log
from processor.store import StreamInfo
from processor.stores.tables import CHECKPOINT, RECORDED, checkpoints, events, refused, streams, tenants

_TENANT = select(tenants.c.number).where(tenants.c.name == bindparam("tenant")).scalar_subquery()

_TENANTS = select(tenants.c.name, tenants.c.number)

_CHECKPOINTS = select(tenants.c.name, checkpoints.c.partition, *CHECKPOINT).join_from(
    checkpoints, tenants, checkpoints.c.tenant == tenants.c.number
)

_NUMBER = (
    select(streams.c.number)
    .where(
        streams.c.tenant == _TENANT,
        streams.c.partition == bindparam("partition"),
        streams.c.name == bindparam("name"),
    )
    .scalar_subquery()
)

_STREAMS = (
    select(streams.c.number, streams.c.name, streams.c.version)
    .where(
        streams.c.tenant == _TENANT,
        streams.c.partition == bindparam("partition"),
        streams.c.number > bindparam("after"),
    )
    .order_by(streams.c.number)
    .limit(bindparam("limit"))
)


_REFUSED_IDS = (
    select(refused.c.command_id)
    .where(
        refused.c.tenant == _TENANT,
        refused.c.partition == bindparam("partition"),
        refused.c.command_id.is_not(None),
    )
    .limit(bindparam("limit"))
)


async def tenant_numbers(connection: AsyncConnection) -> dict[str, int]:
    """All tenants' numbers by name."""
    return {row.name: row.number for row in await connection.execute(_TENANTS)}


async def read_checkpoints(connection: AsyncConnection) -> dict[Log, Checkpoint]:
    """Every log's checkpoint, in the order of the logs."""
    rows = await connection.execute(_CHECKPOINTS)
    found = {Log(tenant, partition): Checkpoint(*fields) for tenant, partition, *fields in rows}
    return dict(sorted(found.items()))


async def read_streams(
    connection: AsyncConnection, log: Log, after_number: int, limit: int
) -> list[tuple[int, StreamInfo]]:
    """A page of a log's streams."""
    rows = await connection.execute(_STREAMS, {**log._asdict(), "after": after_number, "limit": limit})
    return [(number, StreamInfo(log, name, version)) for number, name, version in rows]


async def read_refused_ids(connection: AsyncConnection, logs: Sequence[Log], limit: int) -> dict[Log, set[str] | None]:
    """The command ids of the refusals that each log remembers; None where there are more than `limit` refusals."""
    found: dict[Log, set[str] | None] = {}
    for log in logs:
        ids = (await connection.scalars(_REFUSED_IDS, {**log._asdict(), "limit": limit + 1})).all()
        found[log] = set(ids) if len(ids) <= limit else None
    return found


# --- pages of events


class Page(NamedTuple):
    """A query as its driver takes it: `order` names its parameters, some of which have a value that is `given`."""

    text: str
    order: Sequence[str]
    given: Mapping[str, Any]

    def arguments(self, log: Log, **values: int | str) -> list[Any]:
        """The parameters in the order of their places."""
        found = {**self.given, **log._asdict(), **values}
        return [found[name] for name in self.order]


def log_page(event_id: ColumnElement[Any], dialect: Dialect) -> Page:
    """A page of a log's events, by `after`, `limit`; `event_id` says how that column is read."""
    query = (
        select(*_recorded(streams.c.name, event_id))
        .join_from(
            events,
            streams,
            and_(
                streams.c.tenant == events.c.tenant,
                streams.c.partition == events.c.partition,
                streams.c.number == events.c.stream,
            ),
        )
        .where(
            events.c.tenant == _TENANT,
            events.c.partition == bindparam("partition"),
            events.c.position > bindparam("after"),
        )
        .order_by(events.c.position)
        .limit(bindparam("limit"))
    )
    return _page(query, dialect)


def stream_page(event_id: ColumnElement[Any], dialect: Dialect) -> Page:
    """A page of a stream's events, by `name`, `after`, `limit`."""
    # Not a join: with the number at hand, there is one index for it, in the order asked for.
    query = (
        select(*_recorded(bindparam("name", type_=Text()).label("name"), event_id))
        .where(
            events.c.tenant == _TENANT,
            events.c.partition == bindparam("partition"),
            events.c.stream == _NUMBER,
            events.c.version > bindparam("after"),
        )
        .order_by(events.c.version)
        .limit(bindparam("limit"))
    )
    return _page(query, dialect)


def _recorded(name: ColumnElement[Any], event_id: ColumnElement[Any]) -> list[ColumnElement[Any]]:
    instead = {streams.c.name: name, events.c.event_id: event_id}
    return [instead.get(column, column) for column in RECORDED]


def _page(query: Select[Any], dialect: Dialect) -> Page:
    compiled = query.compile(dialect=dialect)
    return Page(str(compiled), compiled.positiontup or [], compiled.params)
