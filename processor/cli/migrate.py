"""`tidemark migrate up` and `tidemark migrate status`."""

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

app = subcommands("Make the store's schema, or see where it is.")


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
