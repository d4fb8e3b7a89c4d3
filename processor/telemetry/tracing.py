"""Traces: a command whose client has it sampled is followed from the fetch to the broker's acknowledgement.

Each such command has a span `process`, a child of the client's. Each stage of a cycle has one span, a child of the
first traced command in it; the first stage, `receive`, is linked to the others, and so is all that happens to them
found. By name they follow OpenTelemetry's conventions for messaging. A command that is not traced costs a look at its
headers.
"""

import time
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from msgspec import UNSET, Struct
from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, Tracer, TracerProvider, set_span_in_context, use_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from processor.messages import Accepted, Conflict, Duplicate, Log, Outcome, Publication, Record, Slice
from processor.names import TopicNames

_W3C = TraceContextTextMapPropagator()
_ROOT = Context()
_SAMPLED = 1
_ODD = frozenset(b"13579bdfBDF")
_MOST_PER_LOG = 1_000


class _Traced(Struct):
    """A traced command that is not published yet."""

    offset: int
    received_ns: int
    span: Span
    leads: bool = False
    """Whether it is the first of its cycle, whose stages are its children."""


class CommandTraces:
    """The traced commands that are on their way, and the spans of what happens to them.

    `one_in`: one in so many commands begins a trace of its own, if its client has given it no context; 0 for none.
    """

    def __init__(
        self, provider: TracerProvider, names: Mapping[str, TopicNames], *, group: str, database: str, one_in: int
    ) -> None:
        self._tracer = provider.get_tracer("tidemark")
        self._names = names
        self._group = group
        self._database = database
        self._one_in = one_in
        self._until_next = one_in
        self._on_their_way: dict[Log, deque[_Traced]] = {}

    def forget(self, log: Log) -> None:
        """A log begins anew: what was on its way is read again."""
        self._on_their_way.pop(log, None)

    def received(self, piece: Slice) -> None:
        """Begin the spans of the commands that are to be traced."""
        chosen = [record for record in _perhaps_sampled(piece.records) if _is_sampled(record)]
        if self._one_in:
            chosen += self._by_lot(piece)
        if not chosen:
            return
        waiting = self._on_their_way.setdefault(piece.log, deque(maxlen=_MOST_PER_LOG))
        now_ns = time.time_ns()
        name = f"process {self._names[piece.log.tenant].commands}"
        attributes = self._of_message("process", piece.log)
        for record in sorted(chosen, key=lambda record: record.offset):
            span = self._tracer.start_span(
                name,
                _context_of(record),
                SpanKind.CONSUMER,
                attributes | {"messaging.kafka.offset": record.offset},
                start_time=now_ns,
            )
            if span.is_recording():
                waiting.append(_Traced(record.offset, now_ns, span))

    def _by_lot(self, piece: Slice) -> list[Record]:
        """One in so many commands, or where its client has given it a trace context, the next one that has none."""
        records, at = piece.records, self._until_next - 1
        chosen = []
        while at < len(records):
            record = records[at]
            if record.headers and _names_parent(record):
                at += 1
            else:
                chosen.append(record)
                at += self._one_in
        self._until_next = at - len(records) + 1
        return chosen

    def cycle(self, taken: Sequence[Slice]) -> "CycleTrace | None":
        """Follow a cycle with these slices; None where nothing in them is traced."""
        found = [
            (piece.log, [traced for traced in waiting if piece.begin <= traced.offset < piece.end])
            for piece in taken
            if (waiting := self._on_their_way.get(piece.log))
        ]
        traced = [one for _, some in found for one in some]
        if not traced:
            return None
        traced[0].leads = True
        log = next(log for log, some in found if some)
        attributes = self._of_message("receive", log)
        attributes["messaging.batch.message_count"] = sum(len(piece.records) for piece in taken)
        began_ns = min(one.received_ns for one in traced)
        name = f"receive {self._names[log.tenant].commands}"
        first, *others = traced
        links = [Link(one.span.get_span_context()) for one in others]
        self._tracer.start_span(name, _under(first), SpanKind.CLIENT, attributes, links, began_ns).end()
        return CycleTrace(self._tracer, first, self._database)

    @contextmanager
    def publishing(self, log: Log, publication: Publication) -> Iterator[None]:
        """Follow a publication, which is the last that happens to its commands."""
        waiting = self._on_their_way.get(log)
        if not waiting or waiting[0].offset >= publication.next_offset:
            yield
            return
        traced: list[_Traced] = []
        while waiting and waiting[0].offset < publication.next_offset:
            traced.append(waiting.popleft())
        if traced[0].leads:
            span = self._publish_span(log, publication, traced[0])
            with use_span(span, end_on_exit=True):
                yield
        else:
            with use_span(traced[0].span, end_on_exit=False):
                yield
        for one in traced:
            outcome = _outcome_at(publication, one.offset)
            if outcome is not None:
                one.span.set_attributes(_of_outcome(outcome))
            one.span.end()

    def _publish_span(self, log: Log, publication: Publication, first: _Traced) -> Span:
        attributes = self._of_message("publish", log)
        attributes["messaging.batch.message_count"] = len(publication.events) + len(publication.answers)
        name = f"publish {self._names[log.tenant].events}"
        return self._tracer.start_span(name, _under(first), SpanKind.PRODUCER, attributes)

    def _of_message(self, operation: str, log: Log) -> dict[str, Any]:
        names = self._names[log.tenant]
        sending = operation == "publish"
        attributes = {
            "messaging.system": "kafka",
            "messaging.operation.name": operation,
            "messaging.operation.type": "send" if sending else operation,
            "messaging.destination.name": names.events if sending else names.commands,
            "messaging.destination.partition.id": str(log.partition),
            "tidemark.tenant": log.tenant,
        }
        return attributes if sending else attributes | {"messaging.consumer.group.name": self._group}


class CycleTrace:
    """The spans of one cycle's stages."""

    def __init__(self, tracer: Tracer, first: _Traced, database: str) -> None:
        self._tracer = tracer
        self._under_first = _under(first)
        self._database = database
        self._stage = self._start("decide", SpanKind.INTERNAL, {})

    def _start(self, name: str, kind: SpanKind, attributes: dict[str, Any]) -> Span:
        return self._tracer.start_span(name, self._under_first, kind, attributes)

    def decided(self) -> None:
        """The plans are made."""
        self._stage.end()

    def committing(self) -> None:
        """In the task that commits: what it logs carries the trace."""
        attributes = {"db.system.name": self._database, "db.operation.name": "commit"}
        self._stage = self._start("commit", SpanKind.CLIENT, attributes)
        otel_context.attach(set_span_in_context(self._stage))

    def committed(self) -> None:
        """The store has answered."""
        self._stage.end()


def _under(traced: _Traced) -> Context:
    return set_span_in_context(traced.span, _ROOT)


def _names_parent(record: Record) -> bool:
    return any(name == "traceparent" for name, _ in record.headers)


def _perhaps_sampled(records: Sequence[Record]) -> list[Record]:
    """Those whose trace flags, if that is what they are, end in an odd digit; most commands need no further look."""
    return [
        record
        for record in records
        if record.headers
        for name, value in record.headers
        if name == "traceparent" and value and value[-1] in _ODD
    ]


def _is_sampled(record: Record) -> bool:
    for name, value in record.headers:
        if name == "traceparent":
            try:
                return bool(int(value[-2:], 16) & _SAMPLED)
            except (TypeError, ValueError):
                return False
    return False


def _context_of(record: Record) -> Context:
    if not record.headers:
        return _ROOT
    carrier = {
        name: (value or b"").decode("ascii", "replace")
        for name, value in reversed(record.headers)
        if name in _W3C.fields
    }
    return _W3C.extract(carrier, _ROOT)


def _outcome_at(publication: Publication, offset: int) -> Outcome | None:
    answers = publication.answers
    index = bisect_left(answers, offset, key=lambda answer: answer[1].offset)
    if index == len(answers) or answers[index][1].offset != offset:
        return None
    return answers[index][1]


def _of_outcome(outcome: Outcome) -> dict[str, Any]:
    attributes: dict[str, Any] = {}
    if outcome.stream is not UNSET:
        attributes["tidemark.stream"] = outcome.stream
    if isinstance(outcome, Accepted | Duplicate):
        kind = "accepted" if isinstance(outcome, Accepted) else "duplicate"
        attributes["tidemark.first_position"] = outcome.first_position
        attributes["tidemark.last_position"] = outcome.last_position
    else:
        kind = "conflict" if isinstance(outcome, Conflict) else "rejected"
        attributes["tidemark.reason"] = outcome.reason
    return attributes | {"tidemark.outcome": kind}
