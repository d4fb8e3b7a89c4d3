"""The way to a server and back: what is on it can be slow, lost before it had an effect, after it, or come late."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from tests.simulation.chance import Chance
from tests.simulation.loop import SimulatedLoop

_T = TypeVar("_T")
_LATE_S = 8.0


class Link:
    """Requests have their effect in the world's process, whatever has become of the one who asked."""

    def __init__(self, loop: SimulatedLoop, chance: Chance) -> None:
        self._loop = loop
        self._chance = chance

    async def call(
        self,
        effect: Callable[[], _T],
        error: Callable[[], Exception],
        *,
        away: bool = False,
        lost: float = 0.0,
        unknown: float = 0.0,
        late: float = 0.0,
    ) -> _T:
        """Ask for an effect, and wait for the answer.

        Raises `error` where the request is lost or the server `away`, where the effect took place but the answer is
        lost (`unknown`), and where the effect takes place only after the asker has given up (`late`).
        """
        chance = self._chance
        answer: asyncio.Future[_T] = self._loop.create_future()
        there_s, back_s = chance.latency_s(), chance.latency_s()
        if away or chance.happens(lost):
            self._later(there_s, _fail, answer, error)
        elif chance.happens(late):
            self._later(there_s, _fail, answer, error)
            self._later(there_s + chance.random.random() * _LATE_S, effect)
        elif chance.happens(unknown):
            self._later(there_s, effect)
            self._later(there_s + back_s, _fail, answer, error)
        else:
            self._later(there_s, self._carry_out, effect, back_s, answer)
        return await answer

    def _later(self, delay_s: float, callback: Callable[..., object], *args: Any) -> None:
        self._loop.call_later(delay_s, callback, *args, context=self._loop.world_context)

    def _carry_out(self, effect: Callable[[], _T], back_s: float, answer: asyncio.Future[_T]) -> None:
        self._later(back_s, _answer, answer, effect())


def _answer(answer: asyncio.Future[_T], result: _T) -> None:
    if not answer.done():
        answer.set_result(result)


def _fail(answer: asyncio.Future[Any], error: Callable[[], Exception]) -> None:
    if not answer.done():
        answer.set_exception(error())
