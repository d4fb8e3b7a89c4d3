"""What the clients of a run asked for and were told, as JSON lines, and the clients themselves.

Every invocation is written down before it is sent, and every answer when it comes: `ok` (the events are in the stream),
`fail` (they are not, and will not be) or `unknown` (no answer in time: they may be, now or later).
"""

import asyncio
import json
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Literal

import msgspec
from msgspec import Struct, UnsetType
from msgspec.structs import replace
from uuid_utils import uuid7

from processor.client import Client
from processor.errors import NotSent, TidemarkError, Unreachable
from processor.messages import Accepted, Command, Duplicate, NewEvent, Outcome
from processor.settings import Settings

Answer = Literal["ok", "fail", "unknown"]

STREAMS = tuple(f"s-{number}" for number in range(9))


class Entry(Struct, omit_defaults=True):
    """One line of a history. `op` numbers the commands; one that is sent again keeps its number."""

    op: int
    what: Literal["invoke", "ok", "fail", "unknown"]
    at_ns: int
    command: Command | UnsetType = msgspec.UNSET
    outcome: Outcome | UnsetType = msgspec.UNSET


class Operation(Struct):
    """A command from the first time that it was sent to its first answer; `ended_ns` is None where none came.

    `outcomes` are all its answers, in order: sent again, it was answered again.
    """

    command: Command
    invoked_ns: int
    ended_ns: int | None = None
    outcomes: list[Outcome] = []

    @property
    def answer(self) -> Answer:
        """How it ended, as far as its clients know."""
        if not self.outcomes:
            return "unknown"
        return "ok" if isinstance(self.outcomes[0], Accepted | Duplicate) else "fail"


class Recorder:
    """Writes a history."""

    def __init__(self, path: Path) -> None:
        self._file: IO[bytes] = path.open("wb")
        self._encode = msgspec.json.Encoder().encode
        self._ops: dict[Any, int] = {}
        self.answers = 0

    def invoke(self, command: Command) -> None:
        """A command is about to be sent, for the first time or again."""
        op = self._ops.setdefault(command.command_id, len(self._ops))
        self._write(Entry(op, "invoke", time.monotonic_ns(), command=command))

    def told(self, command: Command, outcome: Outcome) -> None:
        """Its outcome has come."""
        self.answers += 1
        what: Answer = "ok" if isinstance(outcome, Accepted | Duplicate) else "fail"
        self._write(Entry(self._ops[command.command_id], what, time.monotonic_ns(), outcome=outcome))

    def not_told(self, command: Command) -> None:
        """No outcome came in time."""
        self._write(Entry(self._ops[command.command_id], "unknown", time.monotonic_ns()))

    def _write(self, entry: Entry) -> None:
        self._file.write(self._encode(entry) + b"\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_history(path: Path) -> list[Operation]:
    """The operations of a history, in the order of their first invocations."""
    operations: dict[int, Operation] = {}
    decode = msgspec.json.Decoder(Entry).decode
    for line in path.read_bytes().splitlines():
        entry = decode(line)
        if isinstance(entry.command, Command):
            operations.setdefault(entry.op, Operation(entry.command, entry.at_ns, outcomes=[]))
        elif not isinstance(entry.outcome, UnsetType):
            operation = operations[entry.op]
            operation.ended_ns = operation.ended_ns or entry.at_ns
            operation.outcomes.append(entry.outcome)
    return list(operations.values())


class Load:
    """Clients that append without a pause to a few streams, compete for versions, and send some commands again.

    All that they do comes from `seed` and from the answers. `most_events` is of one command.
    """

    def __init__(
        self,
        settings: Settings,
        recorder: Recorder,
        *,
        clients: int = 6,
        streams: Sequence[str] = STREAMS,
        most_events: int = 3,
        timeout_s: float = 20.0,
        seed: int = 1,
    ) -> None:
        self._settings = settings
        self._recorder = recorder
        self._streams = streams
        self._clients = clients
        self._most_events = most_events
        self._timeout_s = timeout_s
        self._chance = random.Random(seed)
        self._versions = dict.fromkeys(streams, 0)
        self._sent: list[Command] = []
        self._unanswered: list[Command] = []
        self._ended = False

    async def run(self) -> None:
        """Until `end`: all clients at once, each with one command at a time."""
        await asyncio.gather(*(self._client() for _ in range(self._clients)))

    def end(self) -> None:
        """Let every client finish the command that it has under way."""
        self._ended = True

    async def settle(self, timeout_s: float) -> None:
        """Send what has no answer again, until each has one. Raises `TimeoutError`."""
        async with asyncio.timeout(timeout_s):
            while self._unanswered:
                async with self._connected() as client:
                    again, self._unanswered = self._unanswered, []
                    await asyncio.gather(*(self._append(client, command) for command in again))

    async def _client(self) -> None:
        while not self._ended:
            with suppress(Unreachable):
                async with self._connected() as client:
                    await self._appends(client)

    async def _appends(self, client: Client) -> None:
        while not self._ended:
            again = self._sent and self._chance.random() < 0.15
            await self._append(client, self._chance.choice(self._sent[-50:]) if again else self._new_command())

    def _connected(self) -> Client:
        return Client(self._settings, resend_after_s=2.0)

    async def _append(self, client: Client, command: Command) -> None:
        self._recorder.invoke(command)
        try:
            outcome = await client.send(command, timeout_s=self._timeout_s)
        except NotSent:
            raise
        except TidemarkError:
            self._recorder.not_told(command)
            self._unanswered.append(command)
            raise
        self._recorder.told(command, outcome)
        self._sent.append(command)
        if isinstance(outcome, Accepted | Duplicate):
            self._versions[command.stream] = max(self._versions[command.stream], outcome.last_version)

    def _new_command(self) -> Command:
        stream = self._chance.choice(self._streams)
        expects = self._chance.random()
        return Command(
            stream=stream,
            events=list(self._new_events()),
            expected_version=self._versions[stream] if expects < 0.7 else "any",
            command_id=str(uuid7()),
        )

    def _new_events(self) -> Iterator[NewEvent]:
        for number in range(self._chance.randint(1, self._most_events)):
            event = NewEvent(type="Counted", data=msgspec.Raw(json.dumps({"n": number}).encode()))
            yield replace(event, event_id=str(uuid7())) if self._chance.random() < 0.5 else event
