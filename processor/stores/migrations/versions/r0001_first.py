"""The first schema. There is no way down from it: it would delete the store."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None

_NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_EVENT_ID = sa.LargeBinary(16).with_variant(postgresql.UUID(), "postgresql")


def upgrade() -> None:
    _store()
    _checkpoints()
    _streams()
    _events()
    _refused()
    if op.get_context().dialect.name == "postgresql":
        _give_statistics()


def _store() -> None:
    op.create_table(
        "store",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("partitions", sa.Integer, nullable=False),
        sa.Column("format", sa.Integer, nullable=False),
    )
    op.create_table(
        "tenants",
        sa.Column("number", sa.Integer, sa.Identity(), primary_key=True),
        sa.Column("name", _NAME, nullable=False),
        sa.UniqueConstraint("name", name="tenants_name_key"),
    )


def _checkpoints() -> None:
    op.create_table(
        "checkpoints",
        sa.Column("tenant", sa.Integer, nullable=False),
        sa.Column("partition", sa.Integer, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("next_offset", sa.BigInteger, nullable=False),
        sa.Column("next_position", sa.BigInteger, nullable=False),
        sa.Column("streams", sa.BigInteger, nullable=False),
        sa.Column("chain", sa.LargeBinary, nullable=False),
        sa.Column("log_time_ms", sa.BigInteger, nullable=False),
        sa.Column("last_offset", sa.BigInteger, nullable=False),
        sa.Column("last_digest", sa.LargeBinary, nullable=False),
        sa.Column("acknowledged_offset", sa.BigInteger, nullable=False),
        sa.Column("acknowledged_position", sa.BigInteger, nullable=False),
        sa.Column("incarnation", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "partition", name="checkpoints_pkey"),
        postgresql_with={"fillfactor": 20},
    )


def _streams() -> None:
    op.create_table(
        "streams",
        sa.Column("tenant", sa.Integer, nullable=False),
        sa.Column("partition", sa.Integer, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("name", _NAME, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "partition", "name", name="streams_pkey"),
        sa.UniqueConstraint("tenant", "partition", "number", name="streams_number_key"),
        sqlite_with_rowid=False,
        postgresql_with={"fillfactor": 80},
    )


def _events() -> None:
    op.create_table(
        "events",
        sa.Column("tenant", sa.Integer, nullable=False),
        sa.Column("partition", sa.Integer, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("stream", sa.BigInteger, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("command_offset", sa.BigInteger, nullable=False),
        sa.Column("time_ms", sa.BigInteger, nullable=False),
        sa.Column("schema_version", sa.Integer, nullable=False),
        sa.Column("event_id", _EVENT_ID, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.Column("metadata", sa.LargeBinary, nullable=False),
        sa.Column("command_id", sa.Text),
        sa.Column("correlation_id", sa.Text),
        sa.Column("causation_id", sa.Text),
        sa.Column("traceparent", sa.Text),
        sa.PrimaryKeyConstraint("tenant", "partition", "position", name="events_pkey"),
        sa.UniqueConstraint("tenant", "partition", "stream", "version", name="events_version_key"),
        sa.UniqueConstraint("tenant", "partition", "stream", "event_id", name="events_id_key"),
    )


def _refused() -> None:
    op.create_table(
        "refused",
        sa.Column("tenant", sa.Integer, nullable=False),
        sa.Column("partition", sa.Integer, nullable=False),
        sa.Column("incarnation", sa.Integer, nullable=False),
        sa.Column("command_offset", sa.BigInteger, nullable=False),
        sa.Column("log_time_ms", sa.BigInteger, nullable=False),
        sa.Column("stream", _NAME),
        sa.Column("command_id", _NAME),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.Column("outcome", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "partition", "incarnation", "command_offset", name="refused_pkey"),
    )
    op.create_index(
        "refused_command",
        "refused",
        ["tenant", "partition", "stream", "command_id"],
        postgresql_where=sa.text("command_id IS NOT NULL"),
        sqlite_where=sa.text("command_id IS NOT NULL"),
    )


def _give_statistics() -> None:
    # Until PostgreSQL has counted a table, tenant and partition look to it like nearly all of a key: it would read all
    # streams of a log for each of its events. So there is something to count.
    op.execute("INSERT INTO streams SELECT 1, n % 32, n, 1, n FROM generate_series(1, 1024) AS n")
    op.execute("ANALYZE streams")
    op.execute("DELETE FROM streams")
