"""`tidemark demo`."""

from typing import Annotated

import typer

from processor.cli.frame import Form, OutputOption, command, run


@command
def demo(
    broker: Annotated[
        str | None,
        typer.Option("--broker", metavar="HOST:PORT", help="Use this broker, with topics that are deleted afterwards."),
    ] = None,
    output: OutputOption = Form.TEXT,
) -> None:
    """Show what Tidemark does: commands go in, are decided once, and come out as outcomes, streams and a feed.

    Starts a broker, a worker and a SQLite store, all in this process, and leaves nothing behind. Takes a few seconds.

    Example: tidemark demo
    """
    from processor.cli.demonstration import Demonstration  # noqa: PLC0415

    run(Demonstration(broker, output).run())
