from collections.abc import Iterable

from processor.messages import RecordedEvent

def lay_out(tenant: str, events: Iterable[RecordedEvent], batch_bytes: int) -> tuple[bytes, int, int, int]: ...
