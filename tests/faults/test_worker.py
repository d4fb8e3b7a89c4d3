"""Faults of the worker process: killed at each point of the data path, held past its session, ended in mid-batch."""

import signal
from typing import Any

import pytest

from processor.failpoints import FailPoint
from tests.faults.trial import REPEATS, Trial

pytestmark = [pytest.mark.faults, pytest.mark.timeout(60 + 30 * REPEATS)]

# A name that outlives the process: the next one has the logs back at once, without waiting for a session to end.
SAME_WORKER: Any = {"TIDEMARK_GROUP_INSTANCE_ID": "worker-1"}
# Copied, not written in one statement, are more events than this in PostgreSQL: only then is a commit in two parts.
MANY_EVENTS = 250
AT_CLAIM = {FailPoint.BEFORE_CLAIM, FailPoint.AFTER_CLAIM}
AT_THE_END = {FailPoint.ON_REVOCATION, FailPoint.ON_SHUTDOWN}


@pytest.mark.parametrize("point", FailPoint, ids=lambda point: point.value)
async def test_killed(trial: Trial, point: FailPoint) -> None:
    on_postgres = trial.settings.store.startswith("postgresql:")
    many = point is FailPoint.WITHIN_COMMIT and on_postgres
    async with trial.load(most_events=MANY_EVENTS if many else 3, clients=4):
        for repeat in range(REPEATS):
            # At another time of its life in each repetition, from the first on.
            time = 1 if point in AT_CLAIM | AT_THE_END else 1 + repeat % 7
            worker = await trial.worker(f"{point.value}=kill@{time}", ready=False, **SAME_WORKER)
            if point in AT_THE_END:
                await worker.says("owning logs")
                await trial.answers(5)
                worker.send(signal.SIGTERM)
            assert await worker.ends() == -signal.SIGKILL, worker.said
        await trial.worker(**SAME_WORKER)
        await trial.answers(10)
    await trial.holds()
