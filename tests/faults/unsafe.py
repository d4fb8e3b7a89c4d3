"""`tidemark` on PostgreSQL with a safeguard of its store switched off, for trials that have to notice it.

`TIDEMARK_TEST_WITHOUT='epoch check' python -m tests.faults.unsafe worker`. Nothing of it is in the product.
"""

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import Any
from unittest.mock import patch

from msgspec.structs import replace

from processor.cli import main
from processor.messages import Log, Plan, View, Wanted
from processor.store import Committed
from processor.stores import postgres

VARIABLE = "TIDEMARK_TEST_WITHOUT"

_LATE_S = 1.0


class _NoEpochCheck(postgres.PostgresStore):
    """Takes a plan whoever it comes from, if it goes on from where the log stands."""

    async def commit(self, plans: Sequence[Plan]) -> dict[Log, Committed]:
        now = await self.checkpoints()
        return await super().commit([_with_epoch(plan, now[plan.log].epoch) for plan in plans])


def _with_epoch(plan: Plan, epoch: int) -> Plan:
    return replace(plan, before=replace(plan.before, epoch=epoch), after=replace(plan.after, epoch=epoch))


class _Early(postgres.PostgresStore):
    """Says that it has committed a while before it does."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._in_order = asyncio.Lock()
        self._commits: list[asyncio.Task[None]] = []

    async def commit(self, plans: Sequence[Plan]) -> dict[Log, Committed]:
        self._commits.append(asyncio.create_task(self._commit_later(plans)))
        return dict.fromkeys((plan.log for plan in plans), Committed.YES)

    async def _commit_later(self, plans: Sequence[Plan]) -> None:
        async with self._in_order:
            await asyncio.sleep(_LATE_S)
            await super().commit(plans)


class _Forgetful(postgres.PostgresStore):
    """Knows no event by its id."""

    async def load(self, wanted: Mapping[Log, Wanted]) -> dict[Log, View]:
        views = await super().load(wanted)
        for view in views.values():
            view.known.clear()
        return views


WITHOUT: Mapping[str, type[postgres.PostgresStore]] = {
    "": postgres.PostgresStore,
    "epoch check": _NoEpochCheck,
    "publish after commit": _Early,
    "dedup by event id": _Forgetful,
}
"""By the name of the safeguard that is switched off; the empty one is the store as it is."""

if __name__ == "__main__":
    with patch.object(postgres, "PostgresStore", WITHOUT[os.environ.get(VARIABLE, "")]):
        main()
