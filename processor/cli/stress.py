"""`tidemark stress`."""

from enum import StrEnum
from pathlib import Path
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
    TenantOption,
    chosen_tenant,
    command,
    load,
    run,
    show,
)


class ProfileName(StrEnum):
    """Loads that have a name."""

    FIVE_MINUTES = "five_minutes"
    ONE_HOUR = "one_hour"
    SEVEN_DAYS = "seven_days"


@command
def stress(
    profile: Annotated[
        ProfileName,
        typer.Option("--profile", help="100 a second by 2 producers, 1,000 by 4, or 10,000 by 8."),
    ] = ProfileName.FIVE_MINUTES,
    rate: Annotated[float | None, typer.Option("--rate", min=0.1, help="Commands a second.")] = None,
    producers: Annotated[int | None, typer.Option("--producers", min=1, max=64, help="Producers.")] = None,
    duration: Annotated[str | None, typer.Option("--duration", metavar="TIME", help="90s, 5m, 1h, 7d.")] = None,
    streams: Annotated[int, typer.Option("--streams", min=1, help="Streams, all new.")] = 2_000,
    skew: Annotated[float, typer.Option("--skew", min=0, max=5, help="Zipf's exponent; 0 for even.")] = 1.0,
    duplicates: Annotated[float, typer.Option("--duplicates", min=0, max=1, help="Share sent again.")] = 0.05,
    conflicts: Annotated[float, typer.Option("--conflicts", min=0, max=1, help="Share with a wrong version.")] = 0.05,
    events: Annotated[int, typer.Option("--events", min=1, max=100, help="Events of each command.")] = 1,
    readers: Annotated[int, typer.Option("--readers", min=0, max=64, help="Readers, 10 streams a second each.")] = 2,
    watch: Annotated[
        list[int] | None, typer.Option("--watch", metavar="PID", help="A worker here: its memory.")
    ] = None,
    memory_limit: Annotated[float, typer.Option("--memory-limit", metavar="MB", help="Of each such worker.")] = 600.0,
    page: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write the report as a page.")] = None,
    document: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the report as JSON.")] = None,
    brokers: BrokersOption = None,
    store: StoreOption = None,
    topic_prefix: PrefixOption = None,
    partitions: PartitionsOption = None,
    tenant: TenantOption = None,
    config: ConfigOption = None,
    output: OutputOption = Form.TEXT,
) -> None:
    """Put a running Tidemark under a load, and check all that it does meanwhile.

    Producers send by the clock, whatever comes back; the time to a reply counts from when the command was due. Beside
    them, every reply is held against what it has to be, the feed and the store are read on and their positions,
    versions and hashes checked, and streams are read. The events stay: run it on a store that is there for it.

    Ctrl-C ends it early, with the full report. Exit code 1 where something is wrong.

    Example: tidemark stress --rate 500 --duration 10m --html stress.html
    """
    settings = load(brokers, store, topic_prefix, partitions, config)
    from processor.cli.stress_load import Mix, Profile, seconds_of  # noqa: PLC0415

    loads = {
        ProfileName.FIVE_MINUTES: Profile(100, 2, 300),
        ProfileName.ONE_HOUR: Profile(1_000, 4, 3_600),
        ProfileName.SEVEN_DAYS: Profile(10_000, 8, 7 * 86_400),
    }
    named = loads[profile]
    try:
        duration_s = seconds_of(duration) if duration is not None else named.duration_s
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--duration") from None
    if duplicates + conflicts > 1:
        raise typer.BadParameter("more than all commands", param_hint="--duplicates and --conflicts")
    try:
        from processor.cli.stress_report import as_html, as_json, as_text  # noqa: PLC0415
        from processor.cli.stressing import Plan, Stress, stopped_by_signals  # noqa: PLC0415
        from processor.cli.tuning import new_event_loop  # noqa: PLC0415
    except ModuleNotFoundError as missing:
        from processor.errors import SettingsError  # noqa: PLC0415

        raise SettingsError(f"{missing.name} is not installed: pip install 'tidemark[stress]'.") from None

    plan = Plan(
        Profile(rate or named.rate, producers or named.producers, duration_s),
        Mix(streams, skew, duplicates, conflicts, events),
        readers,
        watch or [],
        memory_limit,
    )
    report = run(stopped_by_signals(Stress(settings, chosen_tenant(settings, tenant), plan)), new_event_loop)
    if page is not None:
        page.write_text(as_html(report), encoding="utf-8")
    if document is not None:
        document.write_bytes(as_json(report))
    show(as_json(report).decode().rstrip() if output is Form.JSON else as_text(report))
    if report.violations:
        raise typer.Exit(NO)
