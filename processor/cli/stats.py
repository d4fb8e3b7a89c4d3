"""`tidemark stats`."""

from typing import TYPE_CHECKING, Any

from processor.cli.frame import (
    BrokersOption,
    ConfigOption,
    Form,
    OutputOption,
    PartitionsOption,
    PrefixOption,
    StoreOption,
    command,
    load,
    page,
    run,
    show,
    show_json,
    table,
)

if TYPE_CHECKING:
    from processor.settings import Settings

_NUMBERS = frozenset({"partition", "events", "streams", "watermark", "decided", "log end", "lag"})


@command
def stats(
    brokers: BrokersOption = None,
    store: StoreOption = None,
    topic_prefix: PrefixOption = None,
    partitions: PartitionsOption = None,
    config: ConfigOption = None,
    output: OutputOption = Form.TEXT,
) -> None:
    """Count, per partition: events, streams, the watermark, and the lag: commands that wait to be decided.

    Example: tidemark stats --output json | jq .lag
    """
    settings = load(brokers, store, topic_prefix, partitions, config)
    rows = run(_stats(settings))
    totals = {name: sum(row[name] for row in rows) for name in ("events", "streams", "lag")}
    if output is Form.JSON:
        show_json({**totals, "partitions": rows})
        return
    several = len(settings.tenants) > 1
    shown = [
        ({"tenant": row["tenant"]} if several else {})
        | {"partition": row["partition"], "events": row["events"], "streams": row["streams"]}
        | {"watermark": row["watermark"], "decided": row["next_offset"], "log end": row["end_offset"]}
        | {"lag": row["lag"]}
        for row in rows
    ]
    table(page(), shown, right=_NUMBERS)
    show(f"{totals['events']:,} events in {totals['streams']:,} streams, lag {totals['lag']:,}")


async def _stats(settings: "Settings") -> list[dict[str, Any]]:
    from processor.cli.reading import opened_store  # noqa: PLC0415
    from processor.kafka.ends import log_ends  # noqa: PLC0415

    async with opened_store(settings) as opened:
        checkpoints = await opened.checkpoints()
    rows = []
    for log, end in sorted((await log_ends(settings)).items()):
        checkpoint = checkpoints.get(log)
        decided = checkpoint.next_offset if checkpoint else 0
        watermark = checkpoint.next_position - 1 if checkpoint else 0
        rows.append(
            {
                "tenant": log.tenant,
                "partition": log.partition,
                "events": watermark,
                "streams": checkpoint.streams if checkpoint else 0,
                "watermark": watermark,
                "next_offset": decided,
                "end_offset": end,
                "lag": max(0, end - decided),
            }
        )
    return rows
