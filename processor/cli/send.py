"""`tidemark send`."""

from typing import Annotated

import typer

from processor.cli.frame import (
    NO,
    BrokersOption,
    ConfigOption,
    Form,
    OutputOption,
    PrefixOption,
    TenantOption,
    chosen_tenant,
    command,
    load,
    run,
)


@command
def send(
    source: Annotated[str, typer.Argument(metavar="FILE|-", help="Commands, one JSON object a line; .gz by its name.")],
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait for the outcomes, or only until the broker has the commands.")
    ] = True,
    summary: Annotated[
        bool, typer.Option("--summary/--no-summary", help="Count the outcomes, or print each as it comes.")
    ] = True,
    timeout_s: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", help="Give up when nothing has come back for so long.")
    ] = 60.0,
    brokers: BrokersOption = None,
    topic_prefix: PrefixOption = None,
    tenant: TenantOption = None,
    config: ConfigOption = None,
    output: OutputOption = Form.TEXT,
) -> None:
    """Send commands, and say what they came to.

    A line is a command, plus optional "timestamp" (milliseconds) and "headers" (an object of text) for its record.
    Commands of a stream are decided in the order of their lines. Of a file with a line that is no command, nothing is
    sent; standard input is sent up to such a line.

    Exit code 1 where a command was refused, 3 where outcomes are still missing when --timeout is over.

    Example: tidemark send orders.jsonl.gz
    """
    settings = load(brokers, None, topic_prefix, None, config)
    from processor.cli.sending import Sending  # noqa: PLC0415

    sending = Sending(
        settings, chosen_tenant(settings, tenant), source, wait=wait, summary=summary, timeout_s=timeout_s, form=output
    )
    run(sending.run())
    if sending.refused:
        raise typer.Exit(NO)
