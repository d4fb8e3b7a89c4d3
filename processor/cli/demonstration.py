"""The work of `tidemark demo`: everything there is, small, with a story that shows each outcome once."""

import asyncio
import secrets
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from msgspec import Struct
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from processor.cli.checking import check
from processor.cli.frame import Form, page, say, show_json
from processor.cli.lines import Line, read_file
from processor.cli.reading import EventJson, feed_json, opened_store, recorded_json
from processor.codec import decode_outcome
from processor.errors import Unreachable
from processor.kafka.connection import client_options
from processor.kafka.embedded import EmbeddedBroker
from processor.kafka.reading import event_of, read_feed
from processor.kafka.sending import Sender
from processor.kafka.topics import create_topics
from processor.messages import Accepted, Conflict, Duplicate, Log, Outcome, Rejected
from processor.names import DEFAULT_TENANT, TopicNames
from processor.partition import partition_of
from processor.settings import Settings, load_settings
from processor.verify import Report
from processor.worker import Worker

_SAMPLE = Path(__file__).with_name("sample.jsonl")
_STREAM = "order-42"
_PARTITIONS = 4
_NUMBERS = {"#", "version", "position", "partition", "events"}
_READY_S = 30.0
_ANSWER_S = 30.0
_WIDTH = 100
_COLOURS = {"accepted": "green", "duplicate": "cyan", "conflict": "yellow", "rejected": "red"}


class _Step(Struct):
    """A command of the story, and what it came to."""

    line: Line
    story: str
    expected_version: int | str
    outcome: Outcome


class Demonstration:
    """One run of the command."""

    def __init__(self, broker: str | None, form: Form) -> None:
        self._broker = broker
        self._form = form

    async def run(self) -> None:
        """Run it, and print it. Raises `SettingsError`, `Unreachable` and what the worker raises."""
        async with AsyncExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="tidemark-demo-"))
            settings = await stack.enter_async_context(_broker(self._broker, folder))
            await stack.enter_async_context(_worker(settings))
            steps = await _tell(settings)
            stream = await _read_stream(settings)
            feed = await _read_feed(settings)
            report, _ = await check(settings, feed=True)
            if self._form is Form.JSON:
                _show_json(steps, stream, feed, report)
            else:
                _Page(settings, self._broker).show(steps, stream, feed, report)


# --- what runs


@asynccontextmanager
async def _broker(address: str | None, folder: str) -> AsyncIterator[Settings]:
    """Settings for a broker that has the topics."""
    name = f"tidemark-demo-{secrets.token_hex(3)}."
    own: dict[str, Any] = {
        "store": f"sqlite:///{folder}/tidemark.db",
        "tenants": [DEFAULT_TENANT],
        "partitions": _PARTITIONS,
        "group": name + "group",
        "session_timeout_ms": 6_000,
        "http": "127.0.0.1:0",
    }
    if address is None:
        topics = TopicNames.of("tidemark.", DEFAULT_TENANT).all()
        async with EmbeddedBroker(topics, _PARTITIONS) as broker:
            yield Settings(brokers=[broker.bootstrap], **own)
        return
    settings = load_settings(brokers=address, topic_prefix=name, replication_factor=-1, **own)
    await create_topics(settings)
    try:
        yield settings
    finally:
        await _delete_topics(settings)


async def _delete_topics(settings: Settings) -> None:
    admin = AIOKafkaAdminClient(**client_options(settings))
    try:
        await admin.start()
        await admin.delete_topics(TopicNames.of(settings.topic_prefix, DEFAULT_TENANT).all())
    except KafkaError as error:
        say(f"The topics {settings.topic_prefix}* could not be deleted: {error or type(error).__name__}.")
    finally:
        await admin.close()


@asynccontextmanager
async def _worker(settings: Settings) -> AsyncIterator[None]:
    worker = Worker(settings)
    running = asyncio.create_task(worker.run())
    try:
        async with asyncio.timeout(_READY_S):
            while [status.state for status in worker.statuses.values()] != ["running"] * _PARTITIONS:
                await asyncio.wait({running}, timeout=0.02)
                if running.done():
                    running.result()
        yield
    except TimeoutError:
        raise Unreachable(f"The worker was not ready in {_READY_S:g} s; `tidemark doctor` may tell why.") from None
    finally:
        worker.stop()
        await running


async def _tell(settings: Settings) -> list[_Step]:
    """Send the sample; commands of a stream are decided in the order in which they are sent."""
    lines = list(read_file(_SAMPLE))
    async with Sender(settings, DEFAULT_TENANT) as sender, asyncio.timeout(_ANSWER_S):
        sent = [
            await sender.send(line.stream, line.command, timestamp_ms=line.timestamp_ms, headers=line.headers)
            for line in lines
        ]
        outcomes = [decode_outcome(await command.outcome) for command in sent]
    return [_step(line, outcome) for line, outcome in zip(lines, outcomes, strict=True)]


def _step(line: Line, outcome: Outcome) -> _Step:
    expected = msgspec.json.decode(line.command)["expected_version"]
    return _Step(line, dict(line.headers)["story"].decode(), expected, outcome)


async def _read_stream(settings: Settings) -> list[EventJson]:
    log = Log(DEFAULT_TENANT, partition_of(_STREAM.encode(), _PARTITIONS))
    async with opened_store(settings) as store:
        return [recorded_json(log, event) for event in await store.read_stream(log, _STREAM, 0, 100)]


async def _read_feed(settings: Settings) -> list[EventJson]:
    pages = read_feed(settings, DEFAULT_TENANT, after="start", follow=False)
    events = [feed_json(event_of(record)) async for records in pages for record in records]
    return sorted(events, key=lambda event: (event.partition, event.position))


# --- what is shown


def _show_json(steps: list[_Step], stream: list[EventJson], feed: list[EventJson], report: Report) -> None:
    outcomes = [{"story": step.story, **msgspec.to_builtins(step.outcome)} for step in steps]
    show_json({"ok": report.ok, "outcomes": outcomes, "stream": stream, "feed": feed, "partitions": report.partitions})


class _Page:
    """The demonstration as a person reads it."""

    def __init__(self, settings: Settings, broker: str | None) -> None:
        console = page()
        self._console = console if console.is_terminal else Console(highlight=False, width=_WIDTH)
        self._settings = settings
        self._broker = broker

    def show(self, steps: list[_Step], stream: list[EventJson], feed: list[EventJson], report: Report) -> None:
        where = f"the broker at {self._broker}" if self._broker else "a broker inside this process"
        topics = TopicNames.of(self._settings.topic_prefix, DEFAULT_TENANT)
        self._say("Tidemark: an event store fed through Kafka", style="bold")
        self._say(
            f"{len(steps)} commands went to the topic {topics.commands} on {where}. A worker decided each "
            "once, wrote the events to a store (SQLite), and then published the outcomes and the events."
        )
        self._heading("1  Outcomes", "of two that expect the same version, one wins")
        self._outcomes(steps)
        self._heading(f"2  The stream {_STREAM}", "no gap, whatever was refused or sent twice")
        self._stream(stream)
        self._heading("3  The feed", "every event once, in order within its partition")
        self._feed(feed)
        self._heading("4  Proof", "each hash covers the one before: all recomputed, feed compared")
        self._proof(report)
        self._say(
            "\nWith a broker of your own: tidemark topics create, tidemark worker, and in\n"
            "another terminal tidemark send FILE. If one fails, tidemark doctor says why."
        )

    def _say(self, text: str, style: str = "") -> None:
        self._console.print(Text(text, style=style))

    def _heading(self, title: str, explained: str) -> None:
        self._console.print()
        self._console.print(Text(title, style="bold"), Text(f"({explained})", style="dim"))

    def _table(self, *columns: str) -> Table:
        made = Table(box=box.SIMPLE_HEAD, show_edge=False, header_style="", padding=(0, 1, 0, 0))
        for column in columns:
            made.add_column(column, justify="right" if column in _NUMBERS else "left")
        return made

    def _outcomes(self, steps: list[_Step]) -> None:
        made = self._table("#", "what happens", "stream", "expects", "outcome")
        for step in steps:
            word, detail = _told(step.outcome)
            outcome = Text.assemble((word, _COLOURS[word]), detail)
            made.add_row(
                str(step.line.number), step.story, step.line.stream.decode(), str(step.expected_version), outcome
            )
        self._console.print(made)

    def _stream(self, events: list[EventJson]) -> None:
        made = self._table("version", "event", "data", "time")
        for event in events:
            made.add_row(str(event.version), event.type, bytes(event.data).decode(), event.time[:19] + "Z")
        self._console.print(made)

    def _feed(self, events: list[EventJson]) -> None:
        made = self._table("partition", "position", "stream", "version", "event")
        for event in events:
            made.add_row(str(event.partition), str(event.position), event.stream, str(event.version), event.type)
        self._console.print(made)

    def _proof(self, report: Report) -> None:
        made = self._table("partition", "events", "last hash", "")
        for log in report.partitions:
            if log.events:
                problems = "; ".join(log.problems)
                verdict = Text(problems or "ok", style="red" if problems else "green")
                made.add_row(str(log.partition), str(log.events), f"{log.chain[:32]}…", verdict)
        self._console.print(made)


def _told(outcome: Outcome) -> tuple[str, str]:
    match outcome:
        case Accepted(first_version=first, last_version=last):
            return "accepted", f" as version {first}" if first == last else f" as versions {first} to {last}"
        case Duplicate(first_version=first):
            return "duplicate", f" of version {first}"
        case Conflict(actual_version=actual):
            return "conflict", f": now at version {actual}"
        case Rejected(reason=reason):
            return "rejected", f": {reason}"
