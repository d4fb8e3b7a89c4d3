"""Faults of the group: everyone restarted at once, workers that come and go, logs that move back and forth."""

import asyncio
import signal

import pytest

from tests.faults.trial import FEWER, REPEATS, Trial

pytestmark = [pytest.mark.faults, pytest.mark.timeout(90 + 40 * REPEATS)]

CHURN_S = 150.0
STAYS_S = 2.0


async def test_all_workers_are_killed_at_once_and_started_again(postgres_trial: Trial) -> None:
    trial = postgres_trial
    async with trial.load():
        for _ in trial.times(FEWER):
            workers = await asyncio.gather(trial.worker(), trial.worker())
            await trial.answers(20)
            await asyncio.gather(*(worker.end(signal.SIGKILL) for worker in workers))
        await trial.worker()
        await trial.answers(20)
    await trial.holds()


async def test_a_worker_joins_and_leaves_again_and_again(postgres_trial: Trial) -> None:
    trial = postgres_trial
    async with trial.load():
        await trial.worker()
        for repeat in trial.times(4 * FEWER):
            passing = await trial.worker()
            await trial.answers(20)
            # It leaves the group in its own way, or without a word.
            leaves = signal.SIGKILL if repeat % 4 == 3 else signal.SIGTERM
            assert await passing.end(leaves) == (0 if leaves == signal.SIGTERM else -signal.SIGKILL), passing.said
            await trial.answers(20)
    await trial.holds()


@pytest.mark.timeout(120 + 2 * CHURN_S)
async def test_workers_join_and_leave_every_few_seconds_for_minutes(postgres_trial: Trial) -> None:
    """Two at a time or three, never the same for long, so that a rebalance is hardly over when the next one begins."""
    trial = postgres_trial
    async with trial.load():
        members = [await trial.worker(), await trial.worker()]
        joins = 0
        ending = asyncio.get_running_loop().time() + CHURN_S
        while asyncio.get_running_loop().time() < ending:
            joins += 1
            members.append(await trial.worker(ready=False))
            await asyncio.sleep(STAYS_S)
            # Mostly in its own way, sometimes without a word: its session has to run out.
            leaves = signal.SIGKILL if joins % 5 == 0 else signal.SIGTERM
            oldest = members.pop(0)
            assert await oldest.end(leaves) in (0, -signal.SIGKILL), oldest.said
            await trial.answers(5)
        trial.tried = joins
        await trial.answers(20)
    await trial.holds()


async def test_another_owner_claims_all_logs_while_they_stay_assigned(trial: Trial) -> None:
    """As by a worker of the same store in another group: a log that moves on is found to be another's, and claimed."""
    async with trial.load():
        worker = await trial.worker()
        for _ in trial.times(FEWER):
            await trial.answers(10)
            await trial.is_claimed_from(await trial.take_over())
            await worker.says("another owner has claimed")
            await trial.answers(10)
    await trial.holds()
