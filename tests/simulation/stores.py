"""The store: one durable state, which each worker reaches over the network.

What it means to commit, to claim or to read is `MemoryStore`'s to say, which the contract suite checks.
"""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from typing import Any, TypeVar

from processor.errors import StoreUnreachable
from processor.messages import Checkpoint, Log, Plan, RecordedEvent, View, Wanted
from processor.store import Committed, StreamInfo, Usage
from processor.stores.memory import MemoryStore, _place, known_keys
from tests.simulation.chance import Chance
from tests.simulation.checker import Checker
from tests.simulation.link import Link

_T = TypeVar("_T")


class SharedStore(MemoryStore):
    """What all workers share, and what outlives them; the checker looks at each write. Each method is one step."""

    durable = True

    def __init__(self, checker: Checker) -> None:
        super().__init__()
        self.checker = checker
        self.retired = False

    def restored(self, into: "SharedStore", logs: dict[Log, Any]) -> None:
        """Put an older copy of the logs into another store; what is still on its way to this one has no effect."""
        self.retired = True
        into._logs = logs
        self.checker.on_restore(at_once(into.checkpoints()))

    def copy(self) -> dict[Log, Any]:
        """A backup."""
        return deepcopy(self._logs)

    async def claim(self, logs: Sequence[Log]) -> dict[Log, Checkpoint]:
        claimed = await super().claim(logs)
        self.checker.on_claim(claimed)
        return claimed

    async def commit(self, plans: Sequence[Plan]) -> dict[Log, Committed]:
        results = await self.write(plans)
        for plan in plans:
            if results[plan.log] is Committed.YES:
                self.checker.on_commit(plan, (await self.checkpoints())[plan.log])
        return results

    def knows_one_of(self, plans: Sequence[Plan]) -> bool:
        """Whether an event that a plan would add is in its stream already."""
        standing = [plan for plan in plans if _place(self._logs[plan.log].checkpoint) == _place(plan.before)]
        return any(self._logs[plan.log].knows_one_of(known_keys(plan)) for plan in standing)

    async def write(self, plans: Sequence[Plan]) -> dict[Log, Committed]:
        """Commit what can be committed, unseen by the checker."""
        return await super().commit(plans)

    async def acknowledge(self, acknowledged: Mapping[Log, Checkpoint]) -> None:
        await super().acknowledge(acknowledged)
        for log, checkpoint in (await self.checkpoints()).items():
            if log in acknowledged:
                self.checker.on_acknowledge(log, checkpoint)


def at_once(coro: Coroutine[Any, Any, _T]) -> _T:
    """The result of a coroutine that awaits nothing."""
    try:
        coro.send(None)
    except StopIteration as end:
        result: _T = end.value
        return result
    raise AssertionError("it awaits something")


class StoreClient:
    """The shared store as one worker reaches it."""

    durable = True

    def __init__(self, shared: SharedStore, link: Link, chance: Chance) -> None:
        self.shared = shared
        self.link = link
        self.chance = chance

    async def open(self) -> None:
        """Nothing to connect to."""

    async def close(self) -> None:
        """Nothing to let go of."""

    async def examine(self) -> Usage:
        return await self.ask(self.shared.examine)

    async def claim(self, logs: Sequence[Log]) -> dict[Log, Checkpoint]:
        return await self.ask(lambda: self.shared.claim(logs))

    async def refused_ids(self, logs: Sequence[Log], limit: int) -> dict[Log, set[str] | None]:
        return await self.ask(lambda: self.shared.refused_ids(logs, limit))

    async def load(self, wanted: Mapping[Log, Wanted]) -> dict[Log, View]:
        """As the SQL stores: statement by statement, and between two of them someone may commit."""
        views = {log: View.empty() for log in wanted}
        heads = await self.ask(lambda: self.shared.load(wanted))
        for log, view in views.items():
            view.heads = {name: head for name, head in heads[log].heads.items() if name not in wanted[log].heads}
        known = await self.ask(lambda: self.shared.load(wanted)) if self._torn else heads
        refused = await self.ask(lambda: self.shared.load(wanted)) if self._torn else heads
        for log, view in views.items():
            streams = view.heads.keys() | wanted[log].heads.keys()
            view.known = {key: event for key, event in known[log].known.items() if key[0] in streams}
            view.refused, view.refused_at = refused[log].refused, refused[log].refused_at
        return views

    @property
    def _torn(self) -> bool:
        return self.chance.happens(self.chance.profile.store_torn)

    def staged(self, plans: Sequence[Plan]) -> AbstractContextManager[None]:
        return self.shared.staged(plans)

    async def commit(self, plans: Sequence[Plan]) -> dict[Log, Committed]:
        busy = {plan.log: Committed.BUSY for plan in plans if self.chance.happens(self.chance.profile.store_busy)}
        free = [plan for plan in plans if plan.log not in busy]
        return busy | await self.ask(lambda: self._commit_free(free))

    async def _commit_free(self, plans: Sequence[Plan]) -> dict[Log, Committed]:
        if self.chance.profile.taken_together and self.shared.knows_one_of(plans):
            # As the SQL stores: it is the transaction that fails.
            return dict.fromkeys((plan.log for plan in plans), Committed.TAKEN)
        return await self.shared.commit(plans)

    async def acknowledge(self, acknowledged: Mapping[Log, Checkpoint]) -> None:
        """As the SQL stores: a log that someone holds is left as it is."""
        free = {log: to for log, to in acknowledged.items() if not self.chance.happens(self.chance.profile.store_busy)}
        await self.ask(lambda: self.shared.acknowledge(free))

    async def forget_refused(self, log: Log, before_log_time_ms: int, limit: int) -> int:
        return await self.ask(lambda: self.shared.forget_refused(log, before_log_time_ms, limit))

    async def checkpoints(self) -> dict[Log, Checkpoint]:
        return await self.ask(self.shared.checkpoints)

    async def read_log(self, log: Log, after_position: int, limit: int) -> list[RecordedEvent]:
        return await self.ask(lambda: self.shared.read_log(log, after_position, limit))

    async def read_stream(self, log: Log, stream: str, after_version: int, limit: int) -> list[RecordedEvent]:
        return await self.ask(lambda: self.shared.read_stream(log, stream, after_version, limit))

    async def streams(self, log: Log, after_number: int, limit: int) -> list[tuple[int, StreamInfo]]:
        return await self.ask(lambda: self.shared.streams(log, after_number, limit))

    async def ask(self, effect: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Ask the store for something; raises `StoreUnreachable` when the fates say so."""
        chance, profile = self.chance, self.chance.profile

        def carry_out() -> Any:
            return None if self.shared.retired else at_once(effect())

        answer: _T = await self.link.call(
            carry_out,
            lambda: StoreUnreachable("the connection broke"),
            away=chance.store_away,
            lost=profile.store_lost,
            unknown=profile.store_unknown,
            late=profile.store_late,
        )
        return answer
