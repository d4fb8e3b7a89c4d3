"""`tidemark migrate up`, `tidemark migrate status` and `tidemark migrate grants`."""

import re
from collections import defaultdict
from typing import Annotated

import typer

from processor.cli.frame import (
    NO,
    ConfigOption,
    Form,
    OutputOption,
    PartitionsOption,
    StoreOption,
    command,
    load,
    show,
    show_json,
    subcommands,
)
from processor.errors import SettingsError

_MEMORY = "memory:"

app = subcommands(
    "Make the store's schema, see where it is, or print the SQL that gives PostgreSQL's roles their rights."
)


@app.command()
@command
def up(
    store: StoreOption = None,
    partitions: PartitionsOption = None,
    config: ConfigOption = None,
    output: OutputOption = Form.TEXT,
) -> None:
    """Make the store, or bring its schema up to the one that this version needs; does nothing where it is.

    Take a backup before: there is no way down. A SQLite store is made by a worker, too; PostgreSQL only here.

    Example: tidemark migrate up --store postgresql://tidemark@localhost/tidemark
    """
    settings = load(None, store, None, partitions, config)
    if settings.store == _MEMORY:
        raise SettingsError("A store in memory has no schema; TIDEMARK_STORE names one that has.")
    from processor.stores.migrate import current, upgrade  # noqa: PLC0415

    before = current(settings.store)
    after = upgrade(settings.store, partitions=settings.partitions)
    if output is Form.JSON:
        show_json({"before": before, "after": after, "partitions": settings.partitions})
    elif before == after:
        show(f"the store's schema is {after} already: nothing to do")
    elif before is None:
        show(f"made a store with schema {after} and {settings.partitions} partitions")
    else:
        show(f"brought the store's schema from {before} up to {after}")


@app.command()
@command
def status(
    store: StoreOption = None,
    config: ConfigOption = None,
    output: OutputOption = Form.TEXT,
) -> None:
    """Say which schema the store has, and which one this version needs.

    Exit code 1 where they differ.

    Example: tidemark migrate status
    """
    settings = load(None, store, None, None, config)
    if settings.store == _MEMORY:
        raise SettingsError("A store in memory has no schema; TIDEMARK_STORE names one that has.")
    from processor.stores.migrate import current, head  # noqa: PLC0415

    found, needed = current(settings.store), head()
    if output is Form.JSON:
        show_json({"ok": found == needed, "schema": found, "needed": needed})
    elif found == needed:
        show(f"the store's schema is {found}, as it must be")
    else:
        has = "the store has no schema yet" if found is None else f"the store's schema is {found}"
        show(f"{has}; {needed} is needed: run `tidemark migrate up`")
    if found != needed:
        raise typer.Exit(NO)


@app.command()
@command
def grants(
    worker: Annotated[
        str | None, typer.Option("--worker", metavar="ROLE", help="The role of workers, and of who runs `recover`.")
    ] = None,
    reader: Annotated[
        list[str] | None, typer.Option("--reader", metavar="ROLE", help="A role that reads every tenant's events.")
    ] = None,
    tenant_reader: Annotated[
        list[str] | None,
        typer.Option("--tenant-reader", metavar="TENANT=ROLE", help="A role that reads one tenant's events alone."),
    ] = None,
) -> None:
    """Print the SQL that gives PostgreSQL's roles what they need, and no more.

    The owner of the tables runs it after `migrate up`; the roles have to exist, the worker's with BYPASSRLS. Changes
    nothing by itself, and nothing when it is run twice.

    Example: tidemark migrate grants --worker tidemark_worker --tenant-reader acme=acme_reader | psql
    """
    from processor.names import TENANT_NAME  # noqa: PLC0415
    from processor.stores.grants import grants_sql  # noqa: PLC0415

    tenants: defaultdict[str, list[str]] = defaultdict(list)
    for given in tenant_reader or []:
        match = re.fullmatch(rf"({TENANT_NAME.pattern})=(.+)", given)
        if match is None:
            raise SettingsError(f"--tenant-reader is {given!r}, but must be TENANT=ROLE.")
        tenants[match[2]].append(match[1])
    if worker is None and not reader and not tenants:
        raise SettingsError("Name a role: --worker, --reader or --tenant-reader.")
    show(grants_sql(worker, reader or [], tenants))
