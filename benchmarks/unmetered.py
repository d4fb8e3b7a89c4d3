"""`tidemark worker` that counts, times and traces nothing: the yardstick of what telemetry costs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from processor.cli import main
from processor.cycle import CycleMeter, OwnedLog
from processor.messages import Log, Publication, Slice
from processor.telemetry import export
from processor.telemetry.meter import WorkerMeter


class Unmetered(WorkerMeter):
    """Is told of everything, and keeps nothing of it."""

    def owning(self, owned: OwnedLog) -> None: ...

    def received(self, piece: Slice) -> None: ...

    def cycle(self, slices: Sequence[Slice]) -> CycleMeter:  # noqa: ARG002 — an override
        return CycleMeter()

    @contextmanager
    def publishing(self, log: Log, publication: Publication) -> Iterator[None]:  # noqa: ARG002 — an override
        yield


if __name__ == "__main__":
    export.WorkerMeter = Unmetered  # type: ignore[attr-defined]  # what the worker makes its meter of
    main()
