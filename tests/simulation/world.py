"""All there is in one run, drawn from its seed: broker, store, group, and the hosts on which workers run."""

from collections.abc import Callable
from random import Random
from typing import Any

from msgspec import Struct

from processor.kafka.publish import Outbound
from processor.messages import Log, Rules
from processor.store import Store
from tests.simulation.broker import Broker, BrokerClient
from tests.simulation.chance import Chance, Profile
from tests.simulation.checker import Checker
from tests.simulation.group import Group, Member
from tests.simulation.link import Link
from tests.simulation.loop import Process, SimulatedLoop
from tests.simulation.outbound import SimulatedOutbound
from tests.simulation.stores import SharedStore, StoreClient
from tests.simulation.worker import Machine, SimulatedWorker

_OLDER = "older backup"


class Parts(Struct, frozen=True):
    """What a run may be made of otherwise, to see what comes of it: the store, the way to it, and the producer.

    `methods` take the place of the core's own: class, name, and the other function.
    """

    shared: Callable[[Checker], SharedStore] = SharedStore
    store: Callable[[SharedStore, Link, Chance], Store] = StoreClient
    outbound: Callable[[Broker, Link, Chance], Outbound] = SimulatedOutbound
    methods: tuple[tuple[type, str, Callable[..., object]], ...] = ()


class Host(Struct):
    """Where workers run, one after the other."""

    number: int
    starts: int = 0
    process: Process | None = None
    worker: SimulatedWorker | None = None


class World:
    """See the module's docstring."""

    def __init__(self, seed: int, parts: Parts) -> None:
        self.notes: list[str] | None = None
        self.random = Random(seed)
        self.profile = Profile.drawn(self.random)
        self.chance = Chance(self.random, self.profile)
        self.loop = SimulatedLoop(self.random, shuffled=self.profile.shuffled)
        self.logs = [Log("default", partition) for partition in range(self.profile.partitions)]
        self.rules = Rules(self.profile.partitions, self.profile.retention_ms)
        self.checker = Checker(self.logs, self.note)
        self.broker = Broker(self.logs, self.checker)
        self.store = parts.shared(self.checker)
        self.group = Group(self.logs, self.random, self.random.choice((1.0, 6.0)), self.note)
        self.hosts = [Host(number) for number in range(self.profile.workers)]
        self._parts = parts
        self._rebuild = False
        self._misfit = ""
        self.link = Link(self.loop, self.chance)

    def note(self, *what: object) -> None:
        """Remember what happens, for a trace."""
        if self.notes is not None:
            self.notes.append(f"{self.loop.time():9.4f}  {self.loop.current.name:<12}  {' '.join(map(str, what))}")

    def start(self, host: Host) -> None:
        """Start a worker, in a process of its own, where none is running."""
        if host.process is not None:
            return
        host.starts += 1
        host.process = Process(f"worker-{host.number}.{host.starts}")
        machine = Machine(
            chance=self.chance,
            rules=self.rules,
            store=self._parts.store(self.store, self.link, self.chance),
            client=BrokerClient(self.broker, self.link, self.chance),
            outbound=self._parts.outbound(self.broker, self.link, self.chance),
            group=self.group,
            on_crash=self.checker.on_crash,
            rebuild=self._rebuild,
            misfit=self._misfit,
        )
        host.worker = SimulatedWorker(host.process.name, machine)
        self.note(f"start {host.process.name}")
        self.loop.spawn(host.process, host.worker.run())

    def kill(self, host: Host) -> Member:
        """End a worker on the spot; the group does not know yet."""
        assert host.process is not None and host.worker is not None
        self.note(f"kill {host.process.name}")
        self.loop.kill(host.process)
        member = host.worker.member
        host.process = host.worker = None
        return member

    def restore(self, backup: dict[Log, Any]) -> None:
        """End all workers, put an older copy of the store in its place, and start them as if nothing had happened."""
        self.note("the store is restored")
        restored = self._parts.shared(self.checker)
        self._end_all()
        self.store.restored(restored, backup)
        self.store = restored
        self._misfit = _OLDER
        self._start_all()

    def rebuild(self) -> None:
        """Start all workers anew, to decide again what the restored store lacks."""
        self.note("the store is brought up from the log")
        self._end_all()
        self._rebuild, self._misfit = True, ""
        self._start_all()

    def _end_all(self) -> None:
        for host in self.hosts:
            if host.process is not None:
                self.group.leave(self.kill(host))

    def _start_all(self) -> None:
        for host in self.hosts:
            self.start(host)

    def heal(self) -> None:
        """From now on nothing fails."""
        self.note("heal")
        self.chance.healed = True
        self.chance.store_away = self.chance.broker_away = False
        if self._misfit:
            self.rebuild()
        for host in self.hosts:
            if host.process is None:
                self.start(host)
            else:
                self.loop.resume(host.process)
