"""The reference store: plain dicts and lists, gone with the process."""
# ruff: noqa: D102 - the methods are described in `store.Store`

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from processor.chain import genesis
from processor.messages import Checkpoint, Head, KnownEvent, Log, Plan, RecordedEvent, RefusedCommand, View, Wanted
from processor.store import Committed, StreamInfo, Usage
from processor.stores.tables import id_bytes

# Packed, an event takes about half of what its object takes.
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(RecordedEvent).decode


class _Stream(Struct, gc=False):
    number: int
    positions: list[int]


class _LogState:
    """All there is of one log.

    The event at position n is `events[n - 1]`; streams stand in the order of their numbers, refusals in that of their
    offsets.
    """

    def __init__(self, log: Log) -> None:
        self.checkpoint = Checkpoint(epoch=0, next_offset=0, next_position=1, streams=0, chain=genesis(log))
        self.events: list[bytes] = []
        self.streams: dict[str, _Stream] = {}
        self.known: dict[bytes, int] = {}
        self.refused: dict[tuple[int, int], RefusedCommand] = {}
        self.refused_ids: dict[tuple[str, str], RefusedCommand] = {}

    def view(self, wanted: Wanted) -> View:
        view = View.empty()
        for name, event_ids in wanted.event_ids.items():
            stream = self.streams.get(name)
            if stream is None:
                continue
            view.heads[name] = Head(stream.number, len(stream.positions))
            for event_id in event_ids:
                position = self.known.get(_known_key(stream.number, event_id))
                if position is not None:
                    view.known[name, event_id] = KnownEvent.of(_unpack(self.events[position - 1]))
        view.refused.update((key, self.refused_ids[key]) for key in wanted.commands if key in self.refused_ids)
        for offset in wanted.offsets:
            refused = self.refused.get((self.checkpoint.incarnation, offset))
            if refused is not None:
                view.refused_at[offset] = refused
        return view

    def knows_one_of(self, keys: list[bytes]) -> bool:
        """Whether one is taken, or there twice."""
        return len(set(keys)) < len(keys) or not self.known.keys().isdisjoint(keys)

    def apply(self, plan: Plan, keys: list[bytes]) -> None:
        for event, key in zip(plan.events, keys, strict=True):
            stream = self.streams.get(event.stream)
            if stream is None:
                stream = self.streams[event.stream] = _Stream(plan.heads[event.stream].number, [])
            stream.positions.append(event.position)
            self.known[key] = event.position
            self.events.append(_pack(event))
        for refused in plan.refused:
            self.refused[plan.after.incarnation, refused.offset] = refused
            if refused.stream is not None and refused.command_id is not None:
                self.refused_ids[refused.stream, refused.command_id] = refused
        now, after = self.checkpoint, plan.after
        if after.incarnation == now.incarnation:
            after = replace(
                after, acknowledged_offset=now.acknowledged_offset, acknowledged_position=now.acknowledged_position
            )
        self.checkpoint = after

    def forget(self, before_log_time_ms: int, limit: int) -> int:
        gone = list(self._forgettable(before_log_time_ms, limit))
        for key in gone:
            refused = self.refused.pop(key)
            by_id = (refused.stream or "", refused.command_id or "")
            if self.refused_ids.get(by_id) is refused:
                del self.refused_ids[by_id]
        return len(gone)

    def _forgettable(self, before_log_time_ms: int, limit: int) -> Iterator[tuple[int, int]]:
        acknowledged = (self.checkpoint.incarnation, self.checkpoint.acknowledged_offset)
        for key, refused in islice(self.refused.items(), limit):
            if key >= acknowledged or refused.log_time_ms >= before_log_time_ms:
                return
            yield key


def known_keys(plan: Plan) -> list[bytes]:
    """The keys that the index on event ids would have of a plan's events."""
    return [_known_key(plan.heads[event.stream].number, event.event_id) for event in plan.events]


def _known_key(stream: int, event_id: str) -> bytes:
    return id_bytes(event_id) + stream.to_bytes(8, "big")


class MemoryStore:
    """See `store.Store`. Nothing awaits anything, so every method is one step of the event loop."""

    durable = False

    def __init__(self) -> None:
        self._logs: dict[Log, _LogState] = {}

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        self._logs.clear()

    async def examine(self) -> Usage:
        return Usage(0, 0, 0)

    async def claim(self, logs: Sequence[Log]) -> dict[Log, Checkpoint]:
        claimed = {}
        for log in logs:
            state = self._logs.setdefault(log, _LogState(log))
            state.checkpoint = replace(state.checkpoint, epoch=state.checkpoint.epoch + 1)
            claimed[log] = state.checkpoint
        return claimed

    async def refused_ids(self, logs: Sequence[Log], limit: int) -> dict[Log, set[str] | None]:
        ids = {log: {key[1] for key in self._logs[log].refused_ids} if log in self._logs else set() for log in logs}
        return {log: of_log if len(of_log) <= limit else None for log, of_log in ids.items()}

    async def load(self, wanted: Mapping[Log, Wanted]) -> dict[Log, View]:
        return {
            log: self._logs[log].view(of_log) if log in self._logs else View.empty() for log, of_log in wanted.items()
        }

    def staged(self, plans: Sequence[Plan]) -> AbstractContextManager[None]:  # noqa: ARG002 - nothing goes on beside a commit
        return nullcontext()

    async def commit(self, plans: Sequence[Plan]) -> dict[Log, Committed]:
        return {plan.log: self._commit(plan) for plan in plans}

    def _commit(self, plan: Plan) -> Committed:
        state = self._logs.get(plan.log)
        if state is None or _place(state.checkpoint) != _place(plan.before):
            return Committed.FENCED
        keys = known_keys(plan)
        if state.knows_one_of(keys):
            return Committed.TAKEN
        state.apply(plan, keys)
        return Committed.YES

    async def acknowledge(self, acknowledged: Mapping[Log, Checkpoint]) -> None:
        for log, given in acknowledged.items():
            state = self._logs.get(log)
            if state is not None and state.checkpoint.epoch == given.epoch:
                now = state.checkpoint
                state.checkpoint = replace(
                    now,
                    acknowledged_offset=max(now.acknowledged_offset, given.acknowledged_offset),
                    acknowledged_position=max(now.acknowledged_position, given.acknowledged_position),
                )

    async def forget_refused(self, log: Log, before_log_time_ms: int, limit: int) -> int:
        return self._logs[log].forget(before_log_time_ms, limit) if log in self._logs else 0

    async def checkpoints(self) -> dict[Log, Checkpoint]:
        return {log: self._logs[log].checkpoint for log in sorted(self._logs)}

    async def read_log(self, log: Log, after_position: int, limit: int) -> list[RecordedEvent]:
        events = self._logs[log].events if log in self._logs else []
        return [_unpack(event) for event in events[after_position : after_position + limit]]

    async def read_stream(self, log: Log, stream: str, after_version: int, limit: int) -> list[RecordedEvent]:
        state = self._logs.get(log)
        if state is None or stream not in state.streams:
            return []
        positions = state.streams[stream].positions[after_version : after_version + limit]
        return [_unpack(state.events[position - 1]) for position in positions]

    async def streams(self, log: Log, after_number: int, limit: int) -> list[tuple[int, StreamInfo]]:
        found = self._logs[log].streams if log in self._logs else {}
        return [
            (stream.number, StreamInfo(log, name, len(stream.positions)))
            for name, stream in islice(found.items(), after_number, after_number + limit)
        ]


def _place(checkpoint: Checkpoint) -> tuple[int, int]:
    return checkpoint.epoch, checkpoint.next_offset
