"""`tidemark verify`."""

from typing import Annotated

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
    command,
    load,
    run,
    show,
    show_json,
)


@command
def verify(
    feed: Annotated[bool, typer.Option("--feed/--no-feed", help="Compare the feed with the store, too.")] = True,
    brokers: BrokersOption = None,
    store: StoreOption = None,
    topic_prefix: PrefixOption = None,
    partitions: PartitionsOption = None,
    config: ConfigOption = None,
    output: OutputOption = Form.TEXT,
) -> None:
    """Check that nothing in the store was changed, is missing, added or in another order, and that the feed agrees.

    Recomputes every hash; checks that positions and versions have no gap, that streams and checkpoints agree with the
    events, and that the feed's first occurrences are the store's events. A store in memory is made again from the log.

    Exit code 1 where something is wrong.

    Example: tidemark verify --output json | jq '.partitions[] | {partition, chain}'
    """
    settings = load(brokers, store, topic_prefix, partitions, config)
    from processor.cli.checking import check  # noqa: PLC0415

    reports = run(check(settings, feed=feed))
    wrong = [report for report in reports if report.problems]
    events, streams = sum(report.events for report in reports), sum(report.streams for report in reports)
    if output is Form.JSON:
        show_json({"ok": not wrong, "events": events, "streams": streams, "partitions": reports})
    else:
        for report in wrong:
            for problem in report.problems:
                show(f"{report.tenant}/{report.partition}: {problem}")
        with_feed = ", and the feed agrees" if feed else ""
        verdict = f"{len(wrong)} of {len(reports)} partitions are wrong" if wrong else f"all is as written{with_feed}"
        show(f"{events:,} events in {streams:,} streams, {len(reports)} partitions: {verdict}")
    if wrong:
        raise typer.Exit(NO)
