"""`tidemark verify`."""

from typing import TYPE_CHECKING, Annotated, Any

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

if TYPE_CHECKING:
    from processor.kafka.feed_check import FeedReport
    from processor.verify import LogReport


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
    from processor.messages import Log  # noqa: PLC0415

    report, feeds = run(check(settings, feed=feed))
    rows = [_row(found, feeds.get(Log(found.tenant, found.partition))) for found in report.partitions]
    if output is Form.JSON:
        show_json({"ok": report.ok, "events": report.events, "streams": report.streams, "partitions": rows})
    else:
        for row in rows:
            for problem in row["problems"]:
                show(f"{row['tenant']}/{row['partition']}: {problem}")
        wrong = sum(1 for row in rows if row["problems"])
        with_feed = ", and the feed agrees" if feed else ""
        verdict = f"all is as written{with_feed}" if report.ok else f"{wrong} of {len(rows)} partitions are wrong"
        show(f"{report.events:,} events in {report.streams:,} streams, {len(rows)} partitions: {verdict}")
    if not report.ok:
        raise typer.Exit(NO)


def _row(found: "LogReport", feed: "FeedReport | None") -> dict[str, Any]:
    """A partition's findings; `feed` is the last position on the feed, None where that was not looked at."""
    row = {name: getattr(found, name) for name in found.__struct_fields__}
    problems = found.problems + (feed.problems if feed else [])
    return row | {"feed": feed.position if feed else None, "problems": problems}
