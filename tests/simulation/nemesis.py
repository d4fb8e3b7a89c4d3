"""The nemesis: kills, stops, pauses, cuts off and moves about, at random moments, between any two steps."""

import asyncio

from tests.simulation.broker import NAMES
from tests.simulation.loop import Process
from tests.simulation.stores import at_once
from tests.simulation.world import Host, World

_STOPS_WITHIN_S = 30.0


class Nemesis:
    """Lives in the world's process, until everything is healed."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._random = world.random
        profile = world.profile
        self._deeds = {
            self._crash: profile.crash,
            self._stop: profile.stop,
            self._pause: profile.pause,
            self._freeze: profile.freeze,
            self._evict: profile.evict,
            self._rebalance: profile.rebalance,
            self._cut_store: profile.store_away,
            self._cut_broker: profile.broker_away,
            self._restore: profile.restore,
            self._expire: profile.expire,
        }
        self._has_restored = self._has_expired = False

    async def run(self) -> None:
        """Do harm, for ever."""
        deeds, weights = list(self._deeds), list(self._deeds.values())
        if not any(weights):
            return
        while True:
            await asyncio.sleep(self._random.expovariate(1 / self._world.profile.nemesis_pause_s))
            (deed,) = self._random.choices(deeds, weights)
            host = self._random.choice(self._world.hosts)
            if host.process is not None and not host.process.paused:
                self._world.loop.spawn(self._world.loop.world, deed(host, host.process))

    def _some_s(self, most_s: float) -> float:
        return self._random.random() * most_s

    async def _steps(self, process: Process) -> bool:
        """Wait until a process has made a few steps, or many; whether it is still there to be harmed."""
        made = asyncio.Event()
        steps = self._random.randint(1, self._random.choice((5, 50, 500)))
        process.after_steps(steps, made.set)
        await made.wait()
        return not process.dead and not self._world.chance.healed

    async def _crash(self, host: Host, process: Process) -> None:
        if await self._steps(process):
            await self._end(host)

    async def _end(self, host: Host) -> None:
        member = self._world.kill(host)
        await asyncio.sleep(self._some_s(3.0))
        self._world.group.leave(member)
        await asyncio.sleep(self._some_s(3.0))
        self._world.start(host)

    async def _stop(self, host: Host, process: Process) -> None:
        """End a worker as an operator does; what takes too long is killed."""
        worker = host.worker
        assert worker is not None
        self._world.note(f"stop {process.name}")
        stopping = self._world.loop.spawn(process, worker.stop())
        await asyncio.wait([stopping], timeout=_STOPS_WITHIN_S)
        if host.process is process:
            await self._end(host)

    async def _pause(self, host: Host, process: Process) -> None:
        if not await self._steps(process) or host.process is not process:
            return
        self._world.note(f"pause {process.name}")
        self._world.loop.pause(process)
        await asyncio.sleep(self._some_s(self._random.choice((0.5, 12.0))))
        self._world.note(f"resume {process.name}")
        self._world.loop.resume(process)

    async def _freeze(self, host: Host, process: Process) -> None:
        """Pause a worker for so long that the group gives its logs to others; then it goes on where it was."""
        assert host.worker is not None
        if not await self._steps(process) or host.process is not process:
            return
        member = host.worker.member
        self._world.note(f"freeze {process.name}")
        self._world.loop.pause(process)
        await asyncio.sleep(self._some_s(2.0))
        self._world.group.leave(member)
        await asyncio.sleep(self._some_s(self._random.choice((2.0, 10.0))))
        self._world.note(f"thaw {process.name}")
        self._world.loop.resume(process)
        await asyncio.sleep(self._some_s(2.0))
        self._world.group.tell_out(member)

    async def _evict(self, host: Host, process: Process) -> None:
        """The group takes a worker for dead; the worker hears of it later, and joins again."""
        assert host.worker is not None
        member = host.worker.member
        self._world.note(f"evict {process.name}")
        self._world.group.leave(member)
        await asyncio.sleep(self._some_s(8.0))
        self._world.group.tell_out(member)

    async def _rebalance(self, host: Host, process: Process) -> None:
        self._world.group.rebalance()

    async def _cut_store(self, host: Host, process: Process) -> None:
        self._world.note("the store is away")
        self._world.chance.store_away = True
        await asyncio.sleep(self._some_s(6.0))
        self._world.chance.store_away = False

    async def _cut_broker(self, host: Host, process: Process) -> None:
        self._world.note("the broker is away")
        self._world.chance.broker_away = True
        await asyncio.sleep(self._some_s(6.0))
        self._world.chance.broker_away = False

    async def _restore(self, host: Host, process: Process) -> None:
        """An operator restores the store from a backup, once, and finds out that it is too old."""
        world = self._world
        if self._has_restored or self._has_expired:
            return
        self._has_restored = True
        backup = world.store.copy()
        await asyncio.sleep(1.0 + self._some_s(self._random.choice((2.0, 10.0))))
        if world.chance.healed:
            return
        world.restore(backup)
        await asyncio.sleep(self._some_s(20.0))
        if not world.chance.healed:
            world.rebuild()

    async def _expire(self, host: Host, process: Process) -> None:
        """Retention deletes commands whose replies and events are out."""
        world = self._world
        if self._has_restored:
            return
        self._has_expired = True
        for log, checkpoint in at_once(world.store.checkpoints()).items():
            before = self._random.randint(0, checkpoint.acknowledged_offset)
            world.note(log, "is deleted below offset", before)
            world.broker.delete(NAMES.commands, log.partition, before)
