"""Row-level security: whoever is not the tables' owner, and does not bypass it, sees rows of the tenants that it sees.

Which role sees which tenants, the policies on `tenants` say; they come with the grants. Writing is allowed to nobody.
"""

from alembic import op

revision = "0002"
down_revision = "0001"

_OF_TENANTS = ("checkpoints", "streams", "events", "refused")


def upgrade() -> None:
    if op.get_context().dialect.name != "postgresql":
        return
    op.execute("ALTER TABLE tenants ENABLE ROW LEVEL SECURITY")
    for table in _OF_TENANTS:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        visible = "tenant IN (SELECT number FROM tenants)"
        op.execute(f"CREATE POLICY of_visible_tenants ON {table} FOR SELECT USING ({visible})")
