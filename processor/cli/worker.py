"""`tidemark worker`."""

from typing import Annotated

import typer

from processor.cli.frame import (
    BrokersOption,
    ConfigOption,
    PartitionsOption,
    PrefixOption,
    StoreOption,
    command,
    load,
)


@command
def worker(
    rebuild: Annotated[
        bool,
        typer.Option(
            "--rebuild",
            help="Let the store be behind what was published, and bring it up from the log.",
        ),
    ] = False,
    brokers: BrokersOption = None,
    store: StoreOption = None,
    topic_prefix: PrefixOption = None,
    partitions: PartitionsOption = None,
    group: Annotated[
        str | None, typer.Option("--group", metavar="NAME", help="Consumer group.", rich_help_panel="Settings")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Decide commands, store events, publish outcomes and the feed, until it is told to stop.

    Runs in the foreground and logs to standard error. SIGTERM or Ctrl-C ends it cleanly: what is committed is
    published, the partitions go to the other workers at once.

    Example: tidemark worker --store sqlite:///./orders.db
    """
    settings = load(brokers, store, topic_prefix, partitions, config, group=group)
    from processor.cli.serving import serve  # noqa: PLC0415

    serve(settings, rebuild=rebuild)
