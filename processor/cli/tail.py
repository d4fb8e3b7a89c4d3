"""`tidemark tail`."""

from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated

import typer

from processor.cli.frame import (
    BrokersOption,
    ConfigOption,
    Form,
    OutputOption,
    PrefixOption,
    TenantOption,
    chosen_tenant,
    command,
    flush,
    load,
    run,
    show,
    show_json,
)

if TYPE_CHECKING:
    from processor.kafka.reading import After
    from processor.settings import Settings


@command
def tail(
    position: Annotated[
        int | None, typer.Option("--from", metavar="POSITION", min=1, help="Begin with this position.")
    ] = None,
    from_start: Annotated[bool, typer.Option("--from-start", help="Begin with the first event there is.")] = False,
    partition: Annotated[
        list[int] | None, typer.Option("--partition", metavar="N", min=0, help="Only this one; may be given again.")
    ] = None,
    count: Annotated[int | None, typer.Option("--count", metavar="N", min=1, help="End after so many events.")] = None,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Wait for more, or end with the last.")] = True,
    brokers: BrokersOption = None,
    topic_prefix: PrefixOption = None,
    tenant: TenantOption = None,
    config: ConfigOption = None,
    output: OutputOption = Form.TEXT,
) -> None:
    """Print events as they come on the feed, each once; from now on, unless told where to begin.

    A position counts within its partition. A line has time, partition/position, stream and version, type, data.

    Example: tidemark tail --partition 3 --from 1200 --count 10
    """
    if position is not None and from_start:
        raise typer.BadParameter("it is either --from or --from-start")
    settings = load(brokers, None, topic_prefix, None, config)
    after: After = "start" if from_start else "now" if position is None else position - 1
    run(_tail(settings, chosen_tenant(settings, tenant), partition, after, count, follow, output))


async def _tail(
    settings: "Settings",
    tenant: str,
    partitions: list[int] | None,
    after: "After",
    count: int | None,
    follow: bool,
    form: Form,
) -> None:
    from processor.cli.reading import event_text, feed_json  # noqa: PLC0415
    from processor.kafka.reading import event_of, read_feed  # noqa: PLC0415

    left = count
    async with aclosing(read_feed(settings, tenant, partitions=partitions, after=after, follow=follow)) as pages:
        async for records in pages:
            for record in records[:left]:
                shown = feed_json(event_of(record))
                show_json(shown) if form is Form.JSON else show(event_text(shown))
            flush()
            left = None if left is None else left - len(records)
            if left is not None and left <= 0:
                return
