"""`tidemark read` and `tidemark streams`."""

from typing import TYPE_CHECKING, Annotated

import typer

from processor.cli.frame import (
    NO,
    BrokersOption,
    ConfigOption,
    Form,
    OutputOption,
    PartitionsOption,
    PrefixOption,
    StoreOption,
    TenantOption,
    chosen_tenant,
    command,
    load,
    run,
    say,
    show,
    show_json,
)

if TYPE_CHECKING:
    from processor.settings import Settings

LimitOption = Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="Print so many at the most.")]


@command
def read(
    stream: Annotated[str, typer.Argument(metavar="STREAM", help="The stream's name.")],
    after: Annotated[int, typer.Option("--after", metavar="VERSION", min=0, help="Begin behind this version.")] = 0,
    limit: LimitOption = None,
    brokers: BrokersOption = None,
    store: StoreOption = None,
    topic_prefix: PrefixOption = None,
    partitions: PartitionsOption = None,
    tenant: TenantOption = None,
    config: ConfigOption = None,
    output: OutputOption = Form.TEXT,
) -> None:
    """Print a stream's events from the store, oldest first.

    Exit code 1 where there is no such stream.

    Example: tidemark read order-42 --output json
    """
    settings = load(brokers, store, topic_prefix, partitions, config)
    if not run(_read(settings, chosen_tenant(settings, tenant), stream, after, limit, output)):
        say(f"tidemark: there is no stream {stream!r}")
        raise typer.Exit(NO)


async def _read(settings: "Settings", tenant: str, stream: str, after: int, limit: int | None, form: Form) -> bool:
    from processor.cli.reading import PAGE, event_text, opened_store, recorded_json  # noqa: PLC0415
    from processor.messages import Log  # noqa: PLC0415
    from processor.partition import partition_of  # noqa: PLC0415

    log = Log(tenant, partition_of(stream.encode(), settings.partitions))
    async with opened_store(settings) as opened:
        exists = bool(await opened.read_stream(log, stream, 0, 1))
        left = limit
        while left != 0:
            events = await opened.read_stream(log, stream, after, PAGE if left is None else min(PAGE, left))
            if not events:
                break
            for event in events:
                shown = recorded_json(log, event)
                show_json(shown) if form is Form.JSON else show(event_text(shown))
            after = events[-1].version
            left = None if left is None else left - len(events)
    return exists


@command
def streams(
    limit: LimitOption = None,
    brokers: BrokersOption = None,
    store: StoreOption = None,
    topic_prefix: PrefixOption = None,
    partitions: PartitionsOption = None,
    tenant: TenantOption = None,
    config: ConfigOption = None,
    output: OutputOption = Form.TEXT,
) -> None:
    """List the streams in the store with their versions, partition by partition, oldest first.

    Example: tidemark streams --output json | jq -r .stream
    """
    settings = load(brokers, store, topic_prefix, partitions, config)
    run(_streams(settings, chosen_tenant(settings, tenant), limit, output))


async def _streams(settings: "Settings", tenant: str, limit: int | None, form: Form) -> None:
    from processor.cli.reading import PAGE, opened_store  # noqa: PLC0415

    left = limit
    async with opened_store(settings) as opened:
        for log in [log for log in await opened.checkpoints() if log.tenant == tenant]:
            number = 0
            while left != 0:
                found = await opened.streams(log, number, PAGE if left is None else min(PAGE, left))
                if not found:
                    break
                for _, info in found:
                    if form is Form.JSON:
                        place = {"tenant": log.tenant, "partition": log.partition}
                        show_json(place | {"stream": info.stream, "version": info.version})
                    else:
                        show(f"{log.partition:>5}  v{info.version:<8} {info.stream}")
                number = found[-1][0]
                left = None if left is None else left - len(found)
