"""What all commands share: options, the settings in force, faults told in one line, and what is printed where.

Nothing heavy is imported here: `tidemark --help` has to answer at once.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, TypeVar

import typer

from processor.errors import SettingsError, TidemarkError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Coroutine

    from rich.console import Console

    from processor.settings import Settings

_P = ParamSpec("_P")
_R = TypeVar("_R")

DONE, NO, WRONG, UNREACHABLE, INTERRUPTED = 0, 1, 2, 3, 130

EXIT_CODES = (
    "Exit codes: 0 done, 1 the answer is no, 2 wrong usage or settings, 3 something needed is unreachable, "
    "130 interrupted."
)

# --- options


class Form(StrEnum):
    """What is printed on standard output: for a person, or for a program."""

    TEXT = "text"
    JSON = "json"


_SETTINGS = "Settings"

BrokersOption = Annotated[
    str | None,
    typer.Option("--brokers", metavar="HOST:PORT,…", help="Kafka brokers.", rich_help_panel=_SETTINGS),
]
StoreOption = Annotated[
    str | None,
    typer.Option("--store", metavar="URL", help="Where events are kept.", rich_help_panel=_SETTINGS),
]
PrefixOption = Annotated[
    str | None,
    typer.Option("--topic-prefix", metavar="TEXT", help="What topic names begin with.", rich_help_panel=_SETTINGS),
]
PartitionsOption = Annotated[
    int | None,
    typer.Option("--partitions", metavar="N", help="Partitions of topics and store.", rich_help_panel=_SETTINGS),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="TOML file with settings.", rich_help_panel=_SETTINGS),
]
TenantOption = Annotated[
    str | None,
    typer.Option("--tenant", metavar="NAME", help="Whose streams; the first one configured where left out."),
]
OutputOption = Annotated[Form, typer.Option("--output", help="For people, or for programs.")]


def load(
    brokers: str | None = None,
    store: str | None = None,
    topic_prefix: str | None = None,
    partitions: int | None = None,
    config: Path | None = None,
    **more: Any,
) -> "Settings":
    """The settings in force: options over the environment over files. Raises `SettingsError`."""
    from processor.settings import load_settings  # noqa: PLC0415

    given = {"brokers": brokers, "store": store, "topic_prefix": topic_prefix, "partitions": partitions}
    return load_settings(**given, config=config, **more)


def chosen_tenant(settings: "Settings", tenant: str | None) -> str:
    """The tenant that was asked for, or the first. Raises `SettingsError` for one that is not configured."""
    if tenant is None:
        return settings.tenants[0]
    if tenant not in settings.tenants:
        raise SettingsError(f"There is no tenant {tenant!r}: TIDEMARK_TENANTS has {', '.join(settings.tenants)}.")
    return tenant


def subcommands(about: str) -> typer.Typer:
    """A command that has commands of its own."""
    return typer.Typer(help=about, epilog=EXIT_CODES, no_args_is_help=True, rich_markup_mode="markdown")


# --- how a command ends


def command(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Make a function a command: what it raises becomes one line on standard error and an exit code."""

    @wraps(function)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with ended_well():
            return function(*args, **kwargs)

    return run


@contextmanager
def ended_well() -> Iterator[None]:
    """Turn faults into one line and an exit code; nobody reads on is no fault."""
    try:
        yield
        sys.stdout.flush()
    except TidemarkError as error:
        say(f"tidemark: {error}")
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        _point_stdout_nowhere()
        raise typer.Exit(DONE) from None


def _point_stdout_nowhere() -> None:
    # What is still buffered would fail once more when the interpreter flushes it at its end.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def run(work: "Coroutine[Any, Any, _R]", loop_factory: "Callable[[], asyncio.AbstractEventLoop] | None" = None) -> _R:
    """Run a command's coroutine to its end; a fault of the connection that no one has named becomes one that is."""
    import asyncio  # noqa: PLC0415

    from aiokafka.errors import KafkaError  # noqa: PLC0415

    from processor.errors import BrokerUnreachable  # noqa: PLC0415

    async def named() -> _R:
        try:
            return await work
        except KafkaError as error:
            what = str(error) or type(error).__name__
            raise BrokerUnreachable(f"The broker does not serve the request: {what}.") from None

    _quiet()
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(named())


def _quiet() -> None:
    """Faults reach the user as errors; what the libraries say about them beside is noise here."""
    import logging  # noqa: PLC0415

    import structlog  # noqa: PLC0415

    for name in ("aiokafka", "asyncio", "faust", "mode"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        processors=[structlog.dev.ConsoleRenderer(colors=False)],
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )


# --- what is printed


def say(text: str) -> None:
    """A line for the person, on standard error."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def show(text: str) -> None:
    """A line of the answer, on standard output."""
    print(text)  # noqa: T201


def flush() -> None:
    """What was shown is to be seen now."""
    sys.stdout.flush()


def show_json(document: Any) -> None:
    """A document, or one line of a listing, as JSON on standard output. `msgspec.Raw` in it goes out as it is."""
    import msgspec  # noqa: PLC0415

    show(msgspec.json.encode(document).decode())


def page() -> "Console":
    """Standard output for tables: as wide as the terminal, and never cut where it is a file or a pipe."""
    from rich.console import Console  # noqa: PLC0415

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=1_000)


def table(console: "Console", rows: "Sequence[Mapping[str, Any]]", right: frozenset[str] = frozenset()) -> None:
    """Rows as a plain table, columns by the keys of the first one; those in `right` are numbers."""
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    if not rows:
        return
    shown = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in rows[0]:
        shown.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        shown.add_row(*(Text(figure(value)) for value in row.values()))
    with console.capture() as drawn:
        console.print(shown)
    for line in drawn.get().splitlines():
        show(line.rstrip())


def figure(value: Any) -> str:
    """A value as a person reads it: thousands in threes."""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
