"""The tables of the SQL stores, one shape for SQLite and PostgreSQL.

Every key begins with tenant and partition. A tenant and a stream are written by number, so that rows and indexes stay
narrow: a tenant's number is the store's own, a stream's comes with the plan. The unique constraints are the backstop
of the decision: nothing ever swallows a violation.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects import postgresql

from processor.messages import Checkpoint

HEAD = "0002"
"""The schema revision that this code reads and writes."""

FORMAT = 1
"""The format of what is in the rows; recorded when a store is made."""


# Text that is looked up or sorted is compared by its bytes, whatever the database's locale.
_NAME = Text().with_variant(Text(collation="C"), "postgresql")

_EVENT_ID = LargeBinary(16).with_variant(postgresql.UUID(as_uuid=False), "postgresql")

METADATA = MetaData()

store = Table(
    "store",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),  # always 1
    Column("partitions", Integer, nullable=False),
    Column("format", Integer, nullable=False),
)

tenants = Table(
    "tenants",
    METADATA,
    Column("number", Integer, Identity(), primary_key=True),
    Column("name", _NAME, nullable=False),
    UniqueConstraint("name", name="tenants_name_key"),
)

checkpoints = Table(
    "checkpoints",
    METADATA,
    Column("tenant", Integer, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("next_offset", BigInteger, nullable=False),
    Column("next_position", BigInteger, nullable=False),
    Column("streams", BigInteger, nullable=False),
    Column("chain", LargeBinary, nullable=False),
    Column("log_time_ms", BigInteger, nullable=False),
    Column("last_offset", BigInteger, nullable=False),
    Column("last_digest", LargeBinary, nullable=False),
    Column("acknowledged_offset", BigInteger, nullable=False),
    Column("acknowledged_position", BigInteger, nullable=False),
    Column("incarnation", Integer, nullable=False),
    PrimaryKeyConstraint("tenant", "partition", name="checkpoints_pkey"),
    # Rewritten in every cycle: with room on the page, PostgreSQL does so without touching the index.
    postgresql_with={"fillfactor": 20},
)

streams = Table(
    "streams",
    METADATA,
    Column("tenant", Integer, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("name", _NAME, nullable=False),
    PrimaryKeyConstraint("tenant", "partition", "name", name="streams_pkey"),
    UniqueConstraint("tenant", "partition", "number", name="streams_number_key"),
    sqlite_with_rowid=False,
    postgresql_with={"fillfactor": 80},
)

events = Table(
    "events",
    METADATA,
    Column("tenant", Integer, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("stream", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("command_offset", BigInteger, nullable=False),
    Column("time_ms", BigInteger, nullable=False),
    Column("schema_version", Integer, nullable=False),
    Column("event_id", _EVENT_ID, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("type", Text, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("metadata", LargeBinary, nullable=False),
    Column("command_id", Text),
    Column("correlation_id", Text),
    Column("causation_id", Text),
    Column("traceparent", Text),
    PrimaryKeyConstraint("tenant", "partition", "position", name="events_pkey"),
    UniqueConstraint("tenant", "partition", "stream", "version", name="events_version_key"),
    UniqueConstraint("tenant", "partition", "stream", "event_id", name="events_id_key"),
)

refused = Table(
    "refused",
    METADATA,
    Column("tenant", Integer, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("incarnation", Integer, nullable=False),
    Column("command_offset", BigInteger, nullable=False),
    Column("log_time_ms", BigInteger, nullable=False),
    Column("stream", _NAME),
    Column("command_id", _NAME),
    Column("content", LargeBinary, nullable=False),
    Column("outcome", LargeBinary, nullable=False),  # JSON
    PrimaryKeyConstraint("tenant", "partition", "incarnation", "command_offset", name="refused_pkey"),
)

Index(
    "refused_command",
    refused.c.tenant,
    refused.c.partition,
    refused.c.stream,
    refused.c.command_id,
    postgresql_where=refused.c.command_id.is_not(None),
    sqlite_where=refused.c.command_id.is_not(None),
)

# --- rows

CHECKPOINT = tuple(checkpoints.c[field] for field in Checkpoint.__struct_fields__)
"""What makes a `Checkpoint`, in the order of its fields."""

RECORDED = (
    streams.c.name,
    events.c.version,
    events.c.position,
    events.c.event_id,
    events.c.type,
    events.c.schema_version,
    events.c.data,
    events.c.metadata,
    events.c.time_ms,
    events.c.command_offset,
    events.c.command_id,
    events.c.correlation_id,
    events.c.causation_id,
    events.c.traceparent,
    events.c.hash,
)
"""What makes a `RecordedEvent`, in the order of its fields; from `events` joined with `streams`."""

KNOWN = (
    events.c.version,
    events.c.position,
    events.c.type,
    events.c.schema_version,
    events.c.data,
    events.c.metadata,
    events.c.command_offset,
)
"""What makes a `KnownEvent`, in the order of its fields."""

REMEMBERED = (
    refused.c.command_offset,
    refused.c.stream,
    refused.c.command_id,
    refused.c.content,
    refused.c.log_time_ms,
    refused.c.outcome,
)
"""What makes a `RefusedCommand`, in the order of its fields."""


def id_bytes(event_id: str) -> bytes:
    """An event id as its 16 bytes."""
    return bytes.fromhex(event_id.replace("-", ""))


def id_text(event_id: Any) -> str:
    """An event id from its 16 bytes: lower case, with hyphens. What is no bytes is shown as it is."""
    if not isinstance(event_id, bytes):
        return str(event_id)
    text = event_id.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
