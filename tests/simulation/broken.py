"""The pipeline with each of its safeguards switched off, one at a time: what the simulation has to notice."""

import asyncio
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from processor.cycle import OwnedLog, _Work
from processor.errors import StoreUnreachable
from processor.kafka.publish import Lane
from processor.messages import Checkpoint, Head, Log, Plan, View, Wanted
from processor.store import Committed
from processor.stores.memory import known_keys
from tests.simulation.chance import Chance
from tests.simulation.link import Link
from tests.simulation.outbound import SimulatedOutbound
from tests.simulation.stores import SharedStore, StoreClient
from tests.simulation.world import Parts


class _NoEpochCheck(SharedStore):
    """Takes a plan whoever it comes from, if it goes on from where the log stands."""

    async def write(self, plans: Sequence[Plan]) -> dict[Log, Committed]:
        return await super().write([self._as_of_now(plan) for plan in plans])

    def _as_of_now(self, plan: Plan) -> Plan:
        epoch = self._logs[plan.log].checkpoint.epoch
        return replace(plan, before=replace(plan.before, epoch=epoch), after=replace(plan.after, epoch=epoch))


class _NoFence(_NoEpochCheck):
    """Takes a plan wherever it goes on from."""

    def _as_of_now(self, plan: Plan) -> Plan:
        now = self._logs[plan.log].checkpoint
        return replace(plan, before=now, after=replace(plan.after, epoch=now.epoch))


class _CheckpointApart(StoreClient):
    """Writes the events in one transaction, and in another one that they are written."""

    async def commit(self, plans: Sequence[Plan]) -> dict[Log, Committed]:
        await self.ask(lambda: self._write_events(plans))
        return await self.ask(lambda: self._write_checkpoints(plans))

    async def _write_events(self, plans: Sequence[Plan]) -> None:
        for plan in plans:
            log = self.shared._logs[plan.log]
            checkpoint = log.checkpoint
            if _place(checkpoint) == _place(plan.before):
                log.apply(plan, known_keys(plan))
                log.checkpoint = checkpoint

    async def _write_checkpoints(self, plans: Sequence[Plan]) -> dict[Log, Committed]:
        results = await self.shared.write([replace(plan, events=[], refused=[]) for plan in plans])
        for plan in plans:
            if results[plan.log] is Committed.YES:
                self.shared.checker.on_commit(plan, self.shared._logs[plan.log].checkpoint)
        return results


class _Early(StoreClient):
    """Says that it has committed before it has: what is then published is not durable."""

    def __init__(self, shared: SharedStore, link: Link, chance: Chance) -> None:
        super().__init__(shared, link, chance)
        self._in_order = asyncio.Lock()
        self._commits: list[asyncio.Task[None]] = []

    async def commit(self, plans: Sequence[Plan]) -> dict[Log, Committed]:
        self._commits.append(asyncio.create_task(self._commit(plans)))
        return dict.fromkeys((plan.log for plan in plans), Committed.YES)

    async def _commit(self, plans: Sequence[Plan]) -> None:
        async with self._in_order:
            await super().commit(plans)


class _Forgetful(StoreClient):
    """Knows no event by its id."""

    async def load(self, wanted: Mapping[Log, Wanted]) -> dict[Log, View]:
        views = await super().load(wanted)
        for view in views.values():
            view.known.clear()
        return views


class _Guessing(StoreClient):
    """Takes a commit whose end is not known for one that went well."""

    async def commit(self, plans: Sequence[Plan]) -> dict[Log, Committed]:
        try:
            return await super().commit(plans)
        except StoreUnreachable:
            return dict.fromkeys((plan.log for plan in plans), Committed.YES)


class _Hasty(SimulatedOutbound):
    """Does not wait for one chunk before it sends the next."""

    async def send(self, partition: int, lanes: Sequence[Lane]) -> None:
        send = super().send
        await asyncio.gather(*(send(partition, [lane._replace(items=[item])]) for lane in lanes for item in lane.items))


_planned, _start_over = OwnedLog.planned, OwnedLog.start_over
_with_heads, _with_answers = _Work.with_heads, _Work.with_answers


def _planned_and_dropped(owned: OwnedLog, plan: Plan) -> None:
    """As a cache may: the heads that a plan leaves are not kept, and loaded while it is committed."""
    _planned(owned, plan)
    for name in plan.heads:
        del owned._heads[name]


def _loaded_as_found(work: _Work, found: Mapping[str, Head]) -> None:
    """Keep heads as the store has told them, whatever was about to be committed."""
    _with_heads(work, found)
    work.owned.loaded(found)


def _answered_without_plans(work: _Work, found: View) -> None:
    """Decide as if the plans that are about to be committed left nothing behind."""
    upon, work.upon = work.upon, []
    _with_answers(work, found)
    work.upon = upon


def _start_over_with_heads(owned: OwnedLog) -> None:
    """Keep what void plans would have left."""
    heads = dict(owned._heads)
    _start_over(owned)
    owned._heads.update(heads)


def _planned_in_bounds(owned: OwnedLog, plan: Plan) -> None:
    """Take refusals that there was no room for as ones that are not there."""
    _planned(owned, plan)
    if owned.refused is None:
        owned.refused = set()


def _place(checkpoint: Checkpoint) -> tuple[int, int]:
    return checkpoint.epoch, checkpoint.next_offset


WITHOUT = {
    "epoch check": Parts(shared=_NoEpochCheck),
    "fence": Parts(shared=_NoFence),
    "checkpoint in the transaction": Parts(store=_CheckpointApart),
    "publish after commit": Parts(store=_Early),
    "dedup by event id": Parts(store=_Forgetful),
    "read-back of an unknown commit": Parts(store=_Guessing),
    "one chunk after the other": Parts(outbound=_Hasty),
    "heads as the plan before leaves them": Parts(
        methods=((OwnedLog, "planned", _planned_and_dropped), (_Work, "with_heads", _loaded_as_found))
    ),
    "ids as the plan before leaves them": Parts(methods=((_Work, "with_answers", _answered_without_plans),)),
    "heads of void plans forgotten": Parts(methods=((OwnedLog, "start_over", _start_over_with_heads),)),
    "refusals that do not fit looked up": Parts(methods=((OwnedLog, "planned", _planned_in_bounds),)),
}
"""By the name of the safeguard that is switched off."""
