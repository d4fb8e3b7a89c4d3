"""What goes wrong, how often, and how long things take: drawn anew for each seed, so that seeds differ in kind."""

from random import Random

from msgspec import Struct


class Profile(Struct):
    """The sizes of a run and the odds of each fault. Each fault is left out of many runs."""

    partitions: int
    workers: int
    clients: int
    streams: int
    commands: int
    shuffled: bool
    batch_size: int
    backlog: int
    # what the worker has fixed: caches, pages and turns
    little: int
    at_a_stretch: int
    together: int
    heads_kept: int
    refused_kept: int
    careful_cycles: int
    page: int
    forget_every: int
    again_every: int
    forget_at_once: int
    look_back: int
    fetch_records: int
    chunk_records: int
    linger_s: float
    latency_s: float
    slow: float
    retention_ms: int
    # of a request to the store, to the broker
    store_lost: float
    store_unknown: float
    store_late: float
    store_busy: float
    store_torn: float
    taken_together: bool
    send_lost: float
    send_unknown: float
    send_late: float
    broker_lost: float
    # what the nemesis may do, by weight, and the mean pause between its deeds
    crash: int
    stop: int
    pause: int
    freeze: int
    evict: int
    rebalance: int
    store_away: int
    broker_away: int
    restore: int
    expire: int
    nemesis_pause_s: float

    @classmethod
    def drawn(cls, random: Random) -> "Profile":
        """A profile of its own for each seed."""

        def odds(most: float) -> float:
            return random.choice((0.0, 0.0, most / 4, most))

        def weight() -> int:
            return random.choice((0, 1, 1, 4))

        return cls(
            partitions=random.randint(2, 4),
            workers=random.choice((1, 2, 2, 3)),
            clients=random.randint(1, 3),
            streams=random.choice((2, 3, 4, 5, 6, 20)),
            commands=random.randint(15, 60),
            shuffled=random.random() < 0.5,
            batch_size=random.choice((1, 5, 100)),
            backlog=random.choice((1, 4, 10, 1000)),
            little=random.choice((1, 3, 256)),
            at_a_stretch=random.choice((1, 3, 256)),
            together=random.choice((1, 5, 1_024)),
            heads_kept=random.choice((0, 1, 2, 1000)),
            refused_kept=random.choice((0, 2, 8_192)),
            careful_cycles=random.choice((2, 32)),
            page=random.choice((1, 3, 1_000)),
            forget_every=random.choice((1, 10)),
            again_every=random.choice((1, 10)),
            forget_at_once=random.choice((1, 10_000)),
            look_back=random.choice((1, 2, 16)),
            fetch_records=random.choice((1, 2, 5, 20)),
            chunk_records=random.choice((1, 2, 3, 20)),
            linger_s=random.choice((0.0, 0.0, 0.01)),
            latency_s=random.choice((0.001, 0.01, 0.1)),
            slow=random.choice((0.02, 0.02, 0.2)),
            retention_ms=random.choice((2_000, 10_000, 1_000_000_000)),
            store_lost=odds(0.2),
            store_unknown=odds(0.2),
            store_late=odds(0.15),
            store_busy=odds(0.3),
            store_torn=random.choice((0.0, 0.9)),
            taken_together=random.random() < 0.5,
            send_lost=odds(0.2),
            send_unknown=odds(0.3),
            send_late=odds(0.25),
            broker_lost=odds(0.2),
            crash=weight(),
            stop=weight(),
            pause=weight(),
            freeze=weight(),
            evict=weight(),
            rebalance=weight(),
            store_away=weight(),
            broker_away=weight(),
            restore=random.choice((0, 0, 4)),
            expire=random.choice((0, 0, 2)),
            nemesis_pause_s=random.choice((0.3, 0.6, 1.5)),
        )


class Chance:
    """Draws, until everything is healed: then nothing fails, and everything is quick."""

    def __init__(self, random: Random, profile: Profile) -> None:
        self.random = random
        self.profile = profile
        self.healed = False
        self.store_away = False
        self.broker_away = False

    def happens(self, odds: float) -> bool:
        """Whether something with these odds happens now."""
        return odds > 0.0 and not self.healed and self.random.random() < odds

    def latency_s(self) -> float:
        """How long a request is on its way: mostly short, now and then very long."""
        draw = self.random.random()
        if self.healed:
            return 0.001 + 0.002 * draw
        if draw > 1.0 - self.profile.slow:
            return 3.0 * self.random.random()
        return self.profile.latency_s * draw
