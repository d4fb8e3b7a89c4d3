"""`tidemark topics create` and `tidemark topics check`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from processor.cli.frame import (
    NO,
    BrokersOption,
    ConfigOption,
    Form,
    OutputOption,
    PartitionsOption,
    PrefixOption,
    command,
    load,
    run,
    show,
    show_json,
    subcommands,
)

if TYPE_CHECKING:
    from processor.kafka.topics import Finding


app = subcommands("Make the topics, or check that they are as they must be.")


@app.command()
@command
def create(
    brokers: BrokersOption = None,
    topic_prefix: PrefixOption = None,
    partitions: PartitionsOption = None,
    config: ConfigOption = None,
    output: OutputOption = Form.TEXT,
) -> None:
    """Create the topics of every tenant that are missing; those that are there are checked and left as they are.

    Exit code 1 where a topic that was there is not as it must be.

    Example: tidemark topics create --brokers localhost:9092 --partitions 32
    """
    settings = load(brokers, None, topic_prefix, partitions, config)
    import msgspec  # noqa: PLC0415

    from processor.kafka.topics import create_topics  # noqa: PLC0415

    report = run(create_topics(settings))
    if output is Form.JSON:
        show_json({"ok": not report.findings, **msgspec.structs.asdict(report)})
    else:
        for name in report.created:
            show(f"created  {name}  {settings.partitions} partitions")
        for name in report.existing:
            show(f"exists   {name}")
        _show_findings(report.findings)
    if report.findings:
        raise typer.Exit(NO)


@app.command()
@command
def check(
    brokers: BrokersOption = None,
    topic_prefix: PrefixOption = None,
    partitions: PartitionsOption = None,
    config: ConfigOption = None,
    output: OutputOption = Form.TEXT,
) -> None:
    """Compare the topics on the broker with what they must be; nothing is changed.

    Exit code 1 where something is wrong with them.

    Example: tidemark topics check
    """
    settings = load(brokers, None, topic_prefix, partitions, config)
    from processor.kafka.topics import check_topics, topic_specs  # noqa: PLC0415

    findings = run(check_topics(settings))
    if output is Form.JSON:
        show_json({"ok": not findings, "findings": findings})
    elif findings:
        _show_findings(findings)
    else:
        show(f"all {len(topic_specs(settings))} topics are as they must be")
    if findings:
        raise typer.Exit(NO)


def _show_findings(findings: "Sequence[Finding]") -> None:
    for finding in findings:
        show(f"{'wrong  ' if finding.fatal else 'warning'}  {finding.text}")
