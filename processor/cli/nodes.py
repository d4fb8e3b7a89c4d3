"""`tidemark nodes`."""

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
    page,
    run,
    show,
    show_json,
    table,
)
from processor.errors import SettingsError

if TYPE_CHECKING:
    from processor.balance import Advice, Group, LogRow, Look, MemberRow
    from processor.settings import Settings
    from processor.store import Store

_TEXT = frozenset({"worker", "host", "tenant"})


@command
def nodes(
    brokers: BrokersOption = None,
    store: StoreOption = None,
    topic_prefix: PrefixOption = None,
    partitions: PartitionsOption = None,
    config: ConfigOption = None,
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.1, max=3600.0, metavar="S", help="Time between the two looks.")
    ] = 2.0,
    output: OutputOption = Form.TEXT,
) -> None:
    """Show who owns which partitions, how far behind they are, and how the load could be spread better.

    Looks twice at the consumer group, the ends of the logs and the store. Exit code 1 if no worker runs, or a
    partition has no owner or stands still.

    Example: tidemark nodes --seconds 10
    """
    from processor.balance import advise, log_rows, member_rows  # noqa: PLC0415

    settings = load(brokers, store, topic_prefix, partitions, config)
    if settings.store == "memory:":
        raise SettingsError(
            "A store in memory is its worker's own, and can't be looked at: `tidemark stats` makes it anew."
        )
    group, before, after = run(_looks(settings, seconds))
    logs = log_rows(group, before, after)
    members, advice = member_rows(group, logs), advise(group, logs)
    ok = all(one.state != "wrong" for one in advice)
    if output is Form.JSON:
        show_json(
            {"ok": ok, "group": settings.group, "state": group.state, "seconds": round(after.at_s - before.at_s, 3)}
            | {"workers": members, "logs": logs, "advice": advice}
        )
    else:
        _show(settings, group, members, logs, advice)
    if not ok:
        raise typer.Exit(NO)


def _show(
    settings: "Settings",
    group: "Group",
    members: "list[MemberRow]",
    logs: "list[LogRow]",
    advice: "list[Advice]",
) -> None:
    several = len(settings.tenants) > 1
    numbers = {row.worker: number for number, row in enumerate(members, 1)}
    workers: list[dict[str, Any]] = [
        {"": numbers[row.worker], "worker": row.worker, "host": row.host, "partitions": row.partitions}
        | {"lag": row.lag, "unanswered": row.unanswered, "unpublished": row.unpublished}
        | {"decided/s": round(row.decided_s), "share": f"{row.share:.0f}%"}
        for row in members
    ]
    partitions: list[dict[str, Any]] = [
        ({"tenant": row.tenant} if several else {})
        | {"partition": row.partition, "owner": numbers.get(row.worker or "", "none"), "epoch": row.epoch}
        | {"decided": row.next_offset, "log end": row.end_offset, "lag": row.lag}
        | {"unanswered": row.unanswered, "unpublished": row.unpublished}
        | {"sent/s": round(row.sent_s), "decided/s": round(row.decided_s)}
        for row in logs
    ]
    for rows in filter(None, (workers, partitions)):
        table(page(), rows, right=frozenset(rows[0]) - _TEXT)
        show("")
    count = f"{len(members)} workers" if len(members) != 1 else "1 worker"
    show(f"{count} in the group {settings.group}, which is {group.state}; lag {sum(row.lag for row in logs):,}")
    for one in advice:
        show(f"{one.state}: {one.text}")


async def _looks(settings: "Settings", seconds: float) -> "tuple[Group, Look, Look]":
    """The group as it is at the second look."""
    import asyncio  # noqa: PLC0415

    from processor.cli.reading import opened_store  # noqa: PLC0415
    from processor.kafka.group import describe_group  # noqa: PLC0415

    async with opened_store(settings) as opened:
        before = await _look(settings, opened)
        await asyncio.sleep(seconds)
        after = await _look(settings, opened)
    return await describe_group(settings), before, after


async def _look(settings: "Settings", opened: "Store") -> "Look":
    """The ends first: what is decided then may only be more than they say, never less than it was."""
    import time  # noqa: PLC0415

    from processor.balance import Look  # noqa: PLC0415
    from processor.kafka.ends import log_ends  # noqa: PLC0415

    ends = await log_ends(settings)
    return Look(time.monotonic(), await opened.checkpoints(), ends)
