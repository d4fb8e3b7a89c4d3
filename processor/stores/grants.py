"""What the roles of PostgreSQL need, as SQL, and whether a worker's role has it.

A worker is neither the owner of the tables nor a superuser: it adds events and can't change or delete one. It bypasses
row-level security, as it serves all tenants and copies rows in, which PostgreSQL refuses under a policy. A reader sees
all tenants, a tenant's reader that tenant alone.
"""

from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import Text

from processor.errors import SettingsError

_WORKER = {
    "alembic_version": ("SELECT",),
    "store": ("SELECT",),
    "tenants": ("SELECT", "INSERT"),
    "checkpoints": ("SELECT", "INSERT", "UPDATE"),
    "streams": ("SELECT", "INSERT", "UPDATE"),
    "events": ("SELECT", "INSERT"),
    "refused": ("SELECT", "INSERT", "DELETE"),
}
_READER = dict.fromkeys(("alembic_version", "store", "tenants", "checkpoints", "streams", "events"), ("SELECT",))

_MISSING = text(
    "SELECT current_user, row_security_active('events'), ("
    " SELECT string_agg(needed || ' on ' || name, ', ') FROM unnest(:tables, :needed) AS asked (name, needed)"
    " WHERE NOT has_table_privilege(name, needed))"
).bindparams(bindparam("tables", type_=ARRAY(Text)), bindparam("needed", type_=ARRAY(Text)))


def grants_sql(worker: str | None, readers: Sequence[str], tenant_readers: Mapping[str, Iterable[str]]) -> str:
    """A script that gives roles what they need; run again, it changes nothing.

    `worker` and `readers` are roles, `tenant_readers` has the tenants that a role may see. The owner of the tables runs
    it, after the migrations; the roles exist.
    """
    statements = []
    if worker is not None:
        statements += _grants(worker, _WORKER)
    for role in readers:
        statements += [*_grants(role, _READER), *_policy(role, "true")]
    for role, tenants in tenant_readers.items():
        names = ", ".join(f"'{name}'" for name in sorted(tenants))
        statements += [*_grants(role, _READER), *_policy(role, f"name IN ({names})")]
    return "\n".join(["BEGIN;", *(f"{statement};" for statement in statements), "COMMIT;"])


def _grants(role: str, needed: Mapping[str, Sequence[str]]) -> list[str]:
    schema = f"EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), {_literal(role)})"
    return [
        f"DO $$ BEGIN {schema}; END $$",
        *(f"GRANT {', '.join(rights)} ON {table} TO {_identifier(role)}" for table, rights in needed.items()),
    ]


def _policy(role: str, visible: str) -> list[str]:
    name = _identifier(role)
    return [
        f"DROP POLICY IF EXISTS {name} ON tenants",
        f"CREATE POLICY {name} ON tenants FOR SELECT TO {name} USING ({visible})",
    ]


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


async def check_role(connection: AsyncConnection) -> None:
    """Raise `SettingsError` unless the connection's role may do what a worker does."""
    asked = [(table, right) for table, rights in _WORKER.items() for right in rights]
    tables, needed = zip(*asked, strict=True)
    role, confined, missing = (
        await connection.execute(_MISSING, {"tables": list(tables), "needed": list(needed)})
    ).one()
    if missing:
        raise SettingsError(f"the role {role} lacks {missing}: `tidemark migrate grants` prints the SQL that gives it")
    if confined:
        raise SettingsError(
            f"the role {role} is held back by row-level security, a worker must not be: run ALTER ROLE {role} BYPASSRLS"
        )
