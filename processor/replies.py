"""Where a reply goes besides the standing topics, and what of the command's headers it carries. Pure."""

from collections.abc import Callable, Sequence

from msgspec import Struct

_TOPIC_HEADERS = ("reply_to", "kafka_replyTopic")
_PARTITION_HEADER = "kafka_replyPartition"
_ECHOED = frozenset({"correlation_id", "kafka_correlationId"})


class ReplyAddress(Struct, frozen=True):
    """`topic` is None where none was named or it is refused; `partition` None where the key decides."""

    topic: str | None = None
    partition: int | None = None
    refused: bool = False
    echoed: tuple[tuple[str, bytes], ...] = ()


NOWHERE = ReplyAddress()


def reply_address(headers: Sequence[tuple[str, bytes]], is_allowed: Callable[[str], bool]) -> ReplyAddress:
    """Read a command record's headers; `is_allowed` says which topics may be named.

    `reply_to` comes before Spring's name for it; a partition that is not 4 bytes is not looked at.
    """
    if not headers:
        return NOWHERE
    named: dict[str, bytes] = {}
    for name, value in headers:
        named.setdefault(name, value or b"")
    echoed = tuple((name, value) for name, value in headers if name in _ECHOED and value is not None)
    asked = next((named[name] for name in _TOPIC_HEADERS if name in named), None)
    if asked is None:
        return ReplyAddress(echoed=echoed)
    topic = asked.decode("utf-8", "replace")
    if not is_allowed(topic):
        return ReplyAddress(refused=True, echoed=echoed)
    raw = named.get(_PARTITION_HEADER, b"")
    partition = int.from_bytes(raw, "big", signed=True) if len(raw) == 4 else -1
    return ReplyAddress(topic, partition if partition >= 0 else None, echoed=echoed)
