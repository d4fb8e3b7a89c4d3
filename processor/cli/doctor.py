"""`tidemark doctor`."""

import typer

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
    show_json,
    table,
)
from processor.errors import SettingsError


@command
def doctor(
    brokers: BrokersOption = None,
    store: StoreOption = None,
    topic_prefix: PrefixOption = None,
    partitions: PartitionsOption = None,
    config: ConfigOption = None,
    output: OutputOption = Form.TEXT,
) -> None:
    """Look at everything that a worker needs, and say what is wrong and what to do.

    That is settings, broker, topics, store, and the workers that run. Changes nothing. The exit code is that of the
    worst finding: 0 for none.

    Example: tidemark doctor
    """
    from processor.cli.examination import Finding, examine  # noqa: PLC0415

    try:
        settings = load(brokers, store, topic_prefix, partitions, config)
    except SettingsError as error:
        findings = [Finding("settings", "wrong", line, error.exit_code) for line in str(error).splitlines()]
    else:
        findings = run(examine(settings))
    code = max(finding.exit_code for finding in findings)
    if output is Form.JSON:
        show_json({"ok": code == 0, "findings": findings})
    else:
        table(page(), [{"": finding.state, "what": finding.what, "found": finding.text} for finding in findings])
    if code:
        raise typer.Exit(code)
