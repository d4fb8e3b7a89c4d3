"""The consumer group: who has which logs. Eager: at every change all let go of all, then each is given its share."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from random import Random

from msgspec import Struct

from processor.messages import Log


class Revoke(Struct):
    """Let go of all logs; `done` is to be called then."""

    done: Callable[[], None]


class Assign(Struct):
    """These logs are the member's from now on."""

    logs: list[Log]


class Member:
    """A worker as the coordinator knows it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.inbox: asyncio.Queue[Revoke | Assign] = asyncio.Queue()
        self.generation = 0


class Group:
    """The coordinator; lives in the world's process."""

    def __init__(self, logs: Sequence[Log], random: Random, session_s: float, note: Callable[..., None]) -> None:
        self.members: list[Member] = []
        self._logs = list(logs)
        self._random = random
        self._session_s = session_s
        self._note = note
        self._generation = 0
        self._changed = asyncio.Event()

    def join(self, member: Member) -> None:
        """Take a member in."""
        if member not in self.members:
            self.members.append(member)
        self._changed.set()

    def leave(self, member: Member) -> None:
        """A member left, or is taken for dead; if it lives, nobody tells it."""
        if member in self.members:
            self.members.remove(member)
        self._changed.set()

    def tell_out(self, member: Member) -> None:
        """A member that was taken for dead hears of it: it lets go of everything, and joins again."""
        member.inbox.put_nowait(Revoke(lambda: self.join(member)))

    def rebalance(self) -> None:
        """Share the logs out anew."""
        self._changed.set()

    def is_current(self, member: Member) -> bool:
        """Whether a member is one of the generation that was last given its logs."""
        return member in self.members and member.generation == self._generation

    async def run(self) -> None:
        """Rebalance whenever something has changed."""
        while True:
            await self._changed.wait()
            await asyncio.sleep(0.2 * self._random.random())
            self._changed.clear()
            await self._rebalance()

    async def _rebalance(self) -> None:
        self._generation += 1
        self._note("generation", self._generation, "begins")
        ready: list[Member] = []
        asked = list(self.members)
        for member in asked:
            member.inbox.put_nowait(Revoke(partial(self._revoked, member, ready)))
        deadline = asyncio.get_running_loop().time() + self._session_s
        while len(ready) < len(asked) and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.05)
        # Who did not answer is out of the group, and joins again when it does.
        self.members = [member for member in self.members if member in ready or member not in asked]
        taken = [member for member in asked if member in ready and member in self.members]
        self._share_out(taken)

    def _revoked(self, member: Member, ready: list[Member]) -> None:
        ready.append(member)
        if member not in self.members:
            self.join(member)

    def _share_out(self, members: list[Member]) -> None:
        if not members:
            return
        logs = self._random.sample(self._logs, len(self._logs))
        order = self._random.sample(members, len(members))
        for index, member in enumerate(order):
            share = sorted(logs[index :: len(order)])
            self._note(member.name, "is given", *share)
            member.generation = self._generation
            member.inbox.put_nowait(Assign(share))
