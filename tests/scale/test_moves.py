"""Workers that join, leave and crash under a steady load: what moves, how long it takes, and that no promise breaks.

Every group of workers is a run of its own, with the history checker's clients beside the load, and its verdict at the
end.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from processor.kafka.group import describe_group
from processor.messages import Log
from tests.faults.trial import Trial, WorkerProcess
from tests.scale.probe import Probe
from tests.scale.report import Moved, Report, Steady, percentile
from tests.servers import Kafka

pytestmark = [pytest.mark.scale, pytest.mark.timeout(600)]

PARTITIONS = 16
RATE = float(os.environ.get("TIDEMARK_TEST_SCALE_RATE", "10"))
"""Commands a second on each partition."""

TRIES = int(os.environ.get("TIDEMARK_TEST_SCALE_TRIES", "2"))
"""How often each event is tried."""

_STEADY_S = 5.0
_STREAMS = tuple(f"s-{number}" for number in range(32))
_WAIT_S = 90.0
_LOOK_EVERY_S = 0.1
_KILLED = -signal.SIGKILL

Owners = dict[Log, str]


class Team:
    """Workers of one trial under a steady load."""

    def __init__(self, trial: Trial, probe: Probe, report: Report) -> None:
        self.workers: list[WorkerProcess] = []
        self._trial = trial
        self._probe = probe
        self._report = report

    def turns(self) -> Iterator[int]:
        """As many tries as are wanted, if there is time for more than one."""
        yield 0
        for turn in range(1, TRIES):
            if not self._report.is_late:
                yield turn

    async def join(self, instance: str | None = None) -> WorkerProcess:
        """One more, which owns logs at the end."""
        worker = await self._trial.worker(TIDEMARK_GROUP_INSTANCE_ID=instance or "")
        self.workers.append(worker)
        return worker

    async def lose(self, number: signal.Signals) -> None:
        """The youngest goes, in order or without a word."""
        worker = self.workers.pop()
        assert await worker.end(number) == (0 if number == signal.SIGTERM else _KILLED), worker.said[-3000:]

    async def settled(self) -> tuple[Owners, float]:
        """Wait until everyone in the group knows what it owns, all partitions are owned, and all of them answer.

        Returns also the time up to which all commands that were due are answered.
        """
        async with asyncio.timeout(_WAIT_S):
            while True:
                group = await describe_group(self._trial.settings)
                owners = {log: member.id for member in group.members for log in member.logs}
                if group.is_settled and len(group.members) == len(self.workers) and len(owners) == PARTITIONS:
                    break
                await asyncio.sleep(_LOOK_EVERY_S)
        return owners, await self._probe.all_answer()

    async def steady(self) -> None:
        """Measure for a while without an event."""
        began = time.monotonic()
        await asyncio.sleep(_STEADY_S)
        ended = await self._probe.all_answer()
        waits = [wait for of_one in self._probe.waits_ms(began, ended).values() for wait in of_one]
        steady = Steady(len(self.workers), len(waits) / (ended - began), percentile(waits, 50), percentile(waits, 99))
        self._report.steady.append(steady)

    async def during(self, event: str, act: Callable[[], Awaitable[object]]) -> None:
        """Let something happen, and measure until all is quiet again."""
        (owners, began), before = await self.settled(), len(self.workers)
        await act()
        now, ended = await self.settled()
        waits = self._probe.waits_ms(began, ended)
        self._report.events.append(
            Moved(
                event=event,
                before=before,
                after=len(self.workers),
                moved_ms=[max(waits[log.partition]) for log in now if owners[log] != now[log]],
                stayed_ms=[max(waits[log.partition]) for log in now if owners[log] == now[log]],
            )
        )


@pytest.fixture
async def team(
    real_kafka: Kafka, postgres_url: str, topic_prefix: str, tmp_path: Path, report: Report
) -> AsyncIterator[Team]:
    """No worker yet; at the end every promise has to be kept."""
    async with _team(Trial(real_kafka.bootstrap, topic_prefix, postgres_url, tmp_path, PARTITIONS), report) as team:
        yield team


@asynccontextmanager
async def _team(trial: Trial, report: Report) -> AsyncIterator[Team]:
    report.session_ms, report.rate = trial.settings.session_timeout_ms, RATE
    async with trial:
        probe = Probe(trial.settings, RATE)
        probe.start()
        try:
            async with trial.load(clients=4, streams=_STREAMS):
                yield Team(trial, probe, report)
        finally:
            await probe.stop()
        await trial.holds()


@pytest.mark.parametrize("workers", [2, 4, 8])
async def test_one_joins_leaves_and_crashes(team: Team, workers: int) -> None:
    for _ in range(workers - 1):
        await team.join()
    for turn in team.turns():
        await team.during("joins", team.join)
        if turn == 0:
            await team.steady()
        await team.during("leaves (SIGTERM)", lambda: team.lose(signal.SIGTERM))
        await team.join()
        await team.during("crashes (kill -9)", lambda: team.lose(signal.SIGKILL))


@pytest.mark.parametrize("workers", [1, 4])
async def test_one_with_a_name_of_its_own_is_started_again(team: Team, workers: int) -> None:
    """As a pod of a StatefulSet is: within its session time-out, it has its partitions back and no other moves."""
    for number in range(workers):
        await team.join(f"worker-{number}")
    if workers == 1:
        await team.settled()
        await team.steady()

    async def again(number: signal.Signals) -> None:
        await team.lose(number)
        await team.join(f"worker-{workers - 1}")

    for _ in team.turns():
        await team.during("is restarted by name (SIGTERM)", lambda: again(signal.SIGTERM))
        await team.during("crashes and is back by name (kill -9)", lambda: again(signal.SIGKILL))
