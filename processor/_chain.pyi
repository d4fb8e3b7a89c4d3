from collections.abc import Sequence

from processor.messages import Command, RecordedEvent

def recorded(
    previous: bytes,
    command: Command,
    ids: Sequence[str],
    version: int,
    position: int,
    time_ms: int,
    offset: int,
    traceparent: str | None,
) -> list[RecordedEvent]: ...
