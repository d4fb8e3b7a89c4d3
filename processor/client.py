"""The Python client: append events, and read the feed.

    async with Client("localhost:9092") as client:
        outcome = await client.append("order-42", [Event("OrderPlaced", {"total": 42})], expected_version=0)
        match outcome:
            case Accepted(last_version=version): ...
            case Conflict(actual_version=version): ...

        async for event in client.events(after={0: 17}):
            print(event.stream, event.version, event.data)

What a command comes to is returned, never raised; what is raised is a `TidemarkError`.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self

import msgspec
from msgspec import Raw, Struct, field
from uuid_utils import uuid7

from processor.codec import decode_outcome
from processor.errors import BrokerUnreachable, OutcomeUnknown
from processor.kafka.connection import reach_broker
from processor.kafka.reading import After, FeedEvent, event_of, read_feed
from processor.kafka.sending import IN_FLIGHT, Sender, Sent
from processor.messages import (
    Accepted,
    Command,
    Conflict,
    Duplicate,
    ExpectedVersion,
    NewEvent,
    Outcome,
    Rejected,
)
from processor.names import DEFAULT_TENANT
from processor.settings import Settings, load_settings

__all__ = ["Accepted", "Client", "Command", "Conflict", "Duplicate", "Event", "FeedEvent", "Outcome", "Rejected"]

_encode = msgspec.json.Encoder().encode


def _new_id() -> str:
    return str(uuid7())


class Event(Struct, frozen=True):
    """An event to append. `data` and `metadata` are what JSON can say, dates and dataclasses included.

    Its id is made with it: the same `Event` appended again is never a second event.
    """

    type: str
    data: Any = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    event_id: str = field(default_factory=_new_id)
    schema_version: int = 1


class Client:
    """Appends to, and reads the feed of, one tenant. For one event loop; as many calls at once as you like.

    `settings` may be the brokers' addresses (`host:port,host:port`); all else then comes from the environment, as for
    every command, and from `more` (fields of `Settings`). `in_flight` bounds how many commands are without an outcome:
    further ones wait for their turn.
    """

    def __init__(
        self,
        settings: Settings | str | None = None,
        *,
        tenant: str = DEFAULT_TENANT,
        in_flight: int = IN_FLIGHT,
        resend_after_s: float = 10.0,
        **more: Any,
    ) -> None:
        given = settings if isinstance(settings, Settings) else load_settings(brokers=settings, **more)
        self._settings = given
        self._tenant = tenant
        self._resend_after_s = resend_after_s
        self._new_sender: Callable[[], Sender] = lambda: Sender(given, tenant, in_flight=in_flight)
        self._sender: Sender | None = None
        self._starting = asyncio.Lock()

    async def __aenter__(self) -> Self:
        """Raises `BrokerUnreachable` and, where certificates can't be used, `SettingsError`."""
        await reach_broker(self._settings)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sender, self._sender = self._sender, None
        if sender is not None:
            await sender.stop()

    async def append(
        self,
        stream: str,
        events: Sequence[Event],
        *,
        expected_version: ExpectedVersion = "any",
        command_id: str | None = None,
        correlation_id: str | None = None,
        causation_id: str | None = None,
        timeout_s: float = 30.0,
    ) -> Outcome:
        """Append events to a stream, all or none, and return what the command came to.

        `expected_version` is the version that the stream must have (0: there must be no stream), or `"any"`,
        `"no_stream"`, `"stream_exists"`. The command is sent again, the same, while no outcome comes.

        Raises `OutcomeUnknown` after `timeout_s`, `NotSent`, `TopicMismatch`, `BrokerUnreachable`, and `ValueError` or
        `TypeError` for data that JSON can't say.
        """
        command = Command(
            stream=stream,
            events=[_new_event(event) for event in events],
            expected_version=expected_version,
            command_id=command_id if command_id is not None else _new_id(),
            correlation_id=msgspec.UNSET if correlation_id is None else correlation_id,
            causation_id=msgspec.UNSET if causation_id is None else causation_id,
        )
        return await self.send(command, timeout_s=timeout_s)

    async def send(self, command: Command, *, timeout_s: float = 30.0) -> Outcome:
        """Send a command as it is, such as that of an `OutcomeUnknown`. Returns and raises what `append` does."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._send(command)
        except TimeoutError:
            text = f"No outcome in {timeout_s:g} s for a command on {command.stream!r}: does a worker run?"
            raise OutcomeUnknown(text, command) from None

    async def _send(self, command: Command) -> Outcome:
        sender = self._sender or await self._started()
        sent = await sender.send(command.stream.encode(), _encode(command))
        try:
            return decode_outcome(await self._outcome(sender, sent))
        except BrokerUnreachable as error:
            raise OutcomeUnknown(str(error), command) from None
        finally:
            sender.forget(sent)

    async def _outcome(self, sender: Sender, sent: Sent) -> bytes:
        wait_s = self._resend_after_s
        while True:
            await asyncio.wait((sent.outcome,), timeout=wait_s)
            if sent.outcome.done():
                return sent.outcome.result()
            if sent.acknowledged:
                sender.send_again(sent)
            wait_s *= 2

    async def _started(self) -> Sender:
        """Connect at the first command, so that who only reads needs no right to write."""
        async with self._starting:
            if self._sender is None:
                sender = self._new_sender()
                await sender.start()
                self._sender = sender
            return self._sender

    async def events(
        self, *, partitions: Iterable[int] | None = None, after: After = "start", follow: bool = True
    ) -> AsyncGenerator[FeedEvent, None]:
        """The events of the feed: each once, and in position order within its partition.

        `after`: the positions already seen by partition, from which to go on (0 where a partition is missing), or
        `"start"`, or `"now"`. Without `follow` it ends with what is there; else with the loop over it and `aclose()`.

        Raises `FeedGap` where the next position is not on the feed, `TopicMismatch`, `BrokerUnreachable`.
        """
        pages = read_feed(self._settings, self._tenant, partitions=partitions, after=after, follow=follow)
        async with aclosing(pages):
            async for records in pages:
                for record in records:
                    yield event_of(record)


def _new_event(event: Event) -> NewEvent:
    return NewEvent(
        type=event.type,
        event_id=event.event_id,
        schema_version=event.schema_version,
        data=_json(event.data),
        metadata=_json(event.metadata),
    )


def _json(value: Any) -> Raw:
    # Not msgspec's own encoder, which writes NaN as null without a word.
    plain = msgspec.to_builtins(value)
    return Raw(json.dumps(plain, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode())
