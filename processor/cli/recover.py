"""`tidemark recover …`: what an operator can choose where a log stands still."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from processor.cli.frame import (
    BrokersOption,
    ConfigOption,
    Form,
    OutputOption,
    PrefixOption,
    StoreOption,
    TenantOption,
    chosen_tenant,
    command,
    load,
    run,
    show,
    show_json,
    subcommands,
)
from processor.errors import SettingsError

if TYPE_CHECKING:
    from processor.kafka.recovering import Choose
    from processor.messages import Log
    from processor.settings import Settings

PartitionOption = Annotated[
    list[int] | None,
    typer.Option("--partition", metavar="N", help="Only this partition; may be given several times."),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]

app = subcommands(
    "Choose how a log goes on that does not fit the store. End all workers of the store first, and take a backup. A "
    "store that is behind the feed needs none of this: `tidemark worker --rebuild`."
)


@app.command("new-log")
@command
def new_log(
    partition: PartitionOption = None,
    dry_run: DryRunOption = False,
    tenant: TenantOption = None,
    brokers: BrokersOption = None,
    store: StoreOption = None,
    topic_prefix: PrefixOption = None,
    config: ConfigOption = None,
    output: OutputOption = Form.TEXT,
) -> None:
    """The commands topic was made anew: decide it from its beginning, on top of what the store has.

    Streams, versions, positions and the feed go on. Commands of the old topic that were not decided are lost.

    Example: tidemark recover new-log --dry-run
    """
    from processor.recover import start_anew  # noqa: PLC0415

    settings = load(brokers, store, topic_prefix, None, config)
    _recover(settings, _logs(settings, tenant, partition), start_anew, dry_run=dry_run, output=output)


@app.command("skip-deleted")
@command
def skip_deleted(
    partition: PartitionOption = None,
    dry_run: DryRunOption = False,
    tenant: TenantOption = None,
    brokers: BrokersOption = None,
    store: StoreOption = None,
    topic_prefix: PrefixOption = None,
    config: ConfigOption = None,
    output: OutputOption = Form.TEXT,
) -> None:
    """Commands were deleted before they were decided: give them up, and go on with the first there is.

    Does nothing for a partition where that is not so.

    Example: tidemark recover skip-deleted --partition 7 --dry-run
    """
    from processor.recover import skip_deleted as skip  # noqa: PLC0415

    settings = load(brokers, store, topic_prefix, None, config)
    _recover(settings, _logs(settings, tenant, partition), skip, dry_run=dry_run, output=output)


@app.command()
@command
def republish(
    partition: PartitionOption = None,
    dry_run: DryRunOption = False,
    tenant: TenantOption = None,
    brokers: BrokersOption = None,
    store: StoreOption = None,
    topic_prefix: PrefixOption = None,
    config: ConfigOption = None,
    output: OutputOption = Form.TEXT,
) -> None:
    """The feed was made anew, or lost its end: publish again what it lacks, in order.

    Does nothing for a partition whose feed ends where the store does.

    Example: tidemark recover republish --dry-run
    """
    from processor.cli.progress import progress  # noqa: PLC0415
    from processor.kafka.recovering import republish as publish  # noqa: PLC0415

    settings = load(brokers, store, topic_prefix, None, config)
    logs = _logs(settings, tenant, partition)
    with progress("events", None) as bar:
        missing = run(publish(settings, logs, bar.at, dry_run=dry_run))
    rows = [
        {"tenant": log.tenant, "partition": log.partition, "first": first, "last": last}
        for log, (first, last) in missing.items()
    ]
    if output is Form.JSON:
        show_json({"dry_run": dry_run, "published": rows})
        return
    for row in rows:
        show(f"{row['tenant']}/{row['partition']}: {_done(dry_run)} positions {row['first']} to {row['last']}")
    if not rows:
        show("no feed lacks anything at its end")


def _logs(settings: "Settings", tenant: str | None, partitions: list[int] | None) -> "list[Log]":
    from processor.messages import Log  # noqa: PLC0415

    chosen = sorted(set(partitions)) if partitions else range(settings.partitions)
    wrong = [partition for partition in chosen if not 0 <= partition < settings.partitions]
    if wrong:
        raise SettingsError(f"There is no partition {wrong[0]}: the store has 0 to {settings.partitions - 1}.")
    return [Log(chosen_tenant(settings, tenant), partition) for partition in chosen]


def _recover(settings: "Settings", logs: "Sequence[Log]", choose: "Choose", *, dry_run: bool, output: Form) -> None:
    from processor.kafka.recovering import recover  # noqa: PLC0415

    choices = run(recover(settings, logs, choose, dry_run=dry_run))
    if output is Form.JSON:
        rows = [
            {
                "tenant": choice.log.tenant,
                "partition": choice.log.partition,
                "changes": choice.plan is not None,
                "what": choice.text,
            }
            for choice in choices
        ]
        show_json({"dry_run": dry_run, "logs": rows})
        return
    for choice in choices:
        does = _done(dry_run) if choice.plan is not None else "nothing to do"
        show(f"{choice.log}: {does}: {choice.text}")


def _done(dry_run: bool) -> str:
    return "would be done" if dry_run else "done"
