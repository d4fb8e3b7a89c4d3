"""Progress on a terminal, and nothing anywhere else."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

_WORTH_A_BAR = 2_000


class Progress(Protocol):
    """How far something has come."""

    def at(self, done: int, total: int | None = None) -> None:
        """So many are done; `total` where it has become known."""
        ...


class _Unseen:
    def at(self, done: int, total: int | None = None) -> None:
        pass


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Progress]:
    """A bar on standard error while the block runs; `total` is None where it isn't known yet."""
    if not sys.stderr.isatty() or (total is not None and total < _WORTH_A_BAR):
        yield _Unseen()
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415
    from rich.progress import Progress as Bars  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(what, total=total)

        class Bar:
            def at(self, done: int, total: int | None = None) -> None:
                bars.update(task, completed=done, total=total)

        yield Bar()
