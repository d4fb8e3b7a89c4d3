from collections.abc import Iterable

from processor.kafka.outgoing import Answer
from processor.messages import RecordedEvent

def lay_out(tenant: str, events: Iterable[RecordedEvent], batch_bytes: int) -> tuple[bytes, int, int, int]: ...
def lay_out_replies(
    answers: Iterable[Answer], room_bytes: int, now_ms: int, batch_bytes: int
) -> tuple[bytes, int, int, int]: ...
