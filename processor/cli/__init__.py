"""The command `tidemark`."""

from typing import Annotated

import typer

from processor.cli import (
    config,
    demo,
    doctor,
    migrate,
    nodes,
    read,
    recover,
    send,
    stats,
    stress,
    tail,
    topics,
    verify,
    worker,
)
from processor.cli.frame import EXIT_CODES

app = typer.Typer(
    name="tidemark",
    help="An event store fed through Kafka: gapless streams, one decision per command, an ordered feed.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415

        print("tidemark", version("tidemark"))  # noqa: T201
        raise typer.Exit


@app.callback()
def _tidemark(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """An event store fed through Kafka: gapless streams, one decision per command, an ordered feed."""


app.command(epilog=EXIT_CODES)(demo.demo)
app.command(epilog=EXIT_CODES)(worker.worker)
app.command(epilog=EXIT_CODES)(send.send)
app.command(epilog=EXIT_CODES)(tail.tail)
app.command(epilog=EXIT_CODES)(read.read)
app.command(epilog=EXIT_CODES)(read.streams)
app.add_typer(topics.app, name="topics")
app.add_typer(migrate.app, name="migrate")
app.command(epilog=EXIT_CODES)(verify.verify)
app.command(epilog=EXIT_CODES)(stats.stats)
app.command(epilog=EXIT_CODES)(nodes.nodes)
app.command(epilog=EXIT_CODES)(doctor.doctor)
app.add_typer(recover.app, name="recover")
app.command(epilog=EXIT_CODES)(stress.stress)
app.command(epilog=EXIT_CODES)(config.config)


def main() -> None:
    """The entry point."""
    app()
