"""A worker process: the real cycles, ownership and publishers, on a simulated consumer, producer and store."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence

from aiokafka.errors import KafkaError
from msgspec import Struct

from processor.cycle import Cycles
from processor.errors import Misfit
from processor.kafka.ownership import Ownership
from processor.kafka.publish import LogPublisher, Outbound
from processor.messages import Limits, Log, Rules, Slice
from processor.store import Store
from tests.simulation.broker import NAMES, REPLY_TOPIC, BrokerClient
from tests.simulation.chance import Chance
from tests.simulation.checker import Violation
from tests.simulation.group import Assign, Group, Member

LIMITS = Limits(events=4)
_POLL_S = 0.1


class Machine(Struct):
    """What a worker is built from."""

    chance: Chance
    rules: Rules
    store: Store
    client: BrokerClient
    outbound: Outbound
    group: Group
    on_crash: Callable[[BaseException], None]
    """The epoch of a log's owner now, whoever that is."""
    rebuild: bool
    misfit: str
    """What a log may stand still for; empty where none may."""


class SimulatedWorker:
    """Owns what the group gives it, until it is stopped or killed."""

    def __init__(self, name: str, machine: Machine) -> None:
        self._machine = machine
        self._member = Member(name)
        self._source = _Source(machine, self._member, self._on_out_of_range)
        self._fetched: asyncio.Queue[Slice] = asyncio.Queue()
        self.ownership = _Ownership(
            machine.store,
            self._source,
            machine.client.find,
            self._publisher,
            partitions=machine.rules.partitions,
            retention_ms=machine.rules.retention_ms,
            rebuild=machine.rebuild,
            on_crash=machine.on_crash,
        )
        self.ownership.machine = machine
        self.cycles = self.ownership.cycles = Cycles(
            machine.store,
            machine.rules,
            LIMITS,
            batch_size=machine.chance.profile.batch_size,
            linger_s=machine.chance.profile.linger_s,
            on_lost=self.ownership.lost,
        )

    @property
    def member(self) -> Member:
        """This worker, as the group's coordinator knows it."""
        return self._member

    def _publisher(self, log: Log, feed_position: int, reply_from: int) -> LogPublisher:
        return LogPublisher(
            log,
            self._machine.outbound,
            NAMES,
            is_allowed=lambda topic: topic == REPLY_TOPIC,
            feed_position=feed_position,
            reply_from=reply_from,
            backlog=self._machine.chance.profile.backlog,
            on_room=self.cycles.wake,
        )

    async def run(self) -> None:
        """Join the group and serve, for ever; what a part of the worker raises ends all of it."""
        parts = (self.cycles.run(), self.ownership.keep_house(), self._follow(), self._fetch(), self._take())
        for part in parts:
            asyncio.create_task(part).add_done_callback(self._ended)
        self._machine.group.join(self._member)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._machine.on_crash(error)

    async def stop(self) -> None:
        """Let go of the logs as at the end of the real worker, and leave the group."""
        await self.ownership.close()
        self._machine.group.leave(self._member)

    async def _follow(self) -> None:
        """Do what the group's coordinator says."""
        source = self._source
        while True:
            message = await self._member.inbox.get()
            if isinstance(message, Assign):
                source.assigned = message.logs
                self.ownership.assigned(message.logs)
                continue
            source.spans.clear()
            await self.ownership.revoked(source.assigned)
            source.assigned = []
            message.done()

    async def _fetch(self) -> None:
        while True:
            fetched = await self._source.fetch(self._wanted())
            for piece in fetched:
                self._fetched.put_nowait(piece)
            if not fetched:
                await asyncio.sleep(_POLL_S)

    def _on_out_of_range(self, log: Log, offset: int) -> None:
        self.ownership.out_of_range(log, offset)

    def _wanted(self) -> list[Log]:
        logs = self.cycles.to_fetch()
        return [log for log in self._source.assigned if log in logs]

    async def _take(self) -> None:
        while True:
            piece = await self._fetched.get()
            # Between the fetch and the agent, a slice may wait while its log is sought anew.
            await asyncio.sleep(self._machine.chance.latency_s())
            try:
                self.cycles.offer(piece)
            except Misfit as misfit:
                self.ownership.misfit(piece.log, misfit)


class _Ownership(Ownership):
    """A log stands still only for what an operator has done to it."""

    machine: Machine

    def stop(self, log: Log, why: Misfit) -> None:
        machine = self.machine
        if not machine.misfit or machine.misfit not in str(why):
            raise Violation(f"a log stands still: {why}")
        super().stop(log, why)


class _Source:
    """The consumer: where each assigned log is read from, and the seek that this came from."""

    def __init__(self, machine: Machine, member: Member, on_out_of_range: Callable[[Log, int], None]) -> None:
        self.assigned: list[Log] = []
        self.spans: dict[Log, tuple[int, int]] = {}
        self._machine = machine
        self._member = member
        self._on_out_of_range = on_out_of_range

    async def group_offsets(self, logs: Sequence[Log]) -> dict[Log, int | None]:
        return await self._machine.client.group_offsets(logs)

    async def commit(self, offsets: Mapping[Log, int]) -> bool:
        group, member = self._machine.group, self._member
        own = {log: offset for log, offset in offsets.items() if log in self.assigned}
        await self._machine.client.commit(own, lambda: group.is_current(member))
        return True

    async def seek(self, seeks: Mapping[Log, tuple[int, int]]) -> set[Log]:
        # The real one does not wait: here, more can happen meanwhile.
        await asyncio.sleep(0)
        self.spans |= {log: seek for log, seek in seeks.items() if log in self.assigned}
        return _InOrder(log for log in seeks if log not in self.assigned)

    async def fetch(self, logs: Sequence[Log]) -> list[Slice]:
        """The next slices of the logs that have been sought and have one."""
        spans = {log: self.spans[log] for log in logs if log in self.spans}
        most = self._machine.chance.profile.fetch_records
        if not spans:
            return []
        try:
            fetched = await self._machine.client.read({log: (span[1], span[1] + most) for log, span in spans.items()})
        except KafkaError:
            return []
        slices: list[Slice] = []
        for log, found in fetched.items():
            # What was sought meanwhile is read from elsewhere.
            if self.spans.get(log) != spans[log]:
                continue
            seek, begin = spans[log]
            if found is None:
                del self.spans[log]
                asyncio.get_running_loop().call_soon(self._on_out_of_range, log, begin)
                continue
            end, records = found
            self.spans[log] = seek, end
            slices.append(Slice(log, seek, begin, end, records))
        return slices


class _InOrder(set[Log]):
    """A set that is gone through in the same order in every run."""

    def __iter__(self) -> Iterator[Log]:
        return iter(sorted(super().__iter__()))
