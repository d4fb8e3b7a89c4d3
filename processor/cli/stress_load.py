"""The load of `tidemark stress`: how much, and what each producer sends next. Pure, given a seed."""

import itertools
import random
import re
from collections import deque
from enum import StrEnum
from typing import NamedTuple

from msgspec import Struct
from uuid_utils import uuid7

_RECENT = 256
_TEXT = "the quick brown fox jumps over the lazy dog"
_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


class Profile(NamedTuple):
    """A load: commands a second by all producers together, how many producers, for how long."""

    rate: float
    producers: int
    duration_s: float


class Mix(Struct, frozen=True):
    """What commands are like. duplicates, conflicts: shares of all. skew: Zipf's exponent, 0 for an even load.

    events: of each command.
    """

    streams: int
    skew: float
    duplicates: float
    conflicts: float
    events: int = 1


class Intent(StrEnum):
    """What a command has to come to."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"


class Asked(NamedTuple):
    """A command to be sent: the record's key and value, and what it has to come to."""

    stream: str
    command_id: str
    value: bytes
    intent: Intent


class Writer:
    """One producer's own streams. Nobody else writes to them, so it knows each stream's version before the reply."""

    def __init__(self, name: str, mix: Mix, number: int) -> None:
        self.number = number
        self._mix = mix
        self._chance = random.Random(number)  # noqa: S311 - a load, not a secret
        self._names = [f"{name}-{number:06}" for number in range(mix.streams)]
        self._weights = list(itertools.accumulate((rank + 1) ** -mix.skew for rank in range(mix.streams)))
        self._versions = dict.fromkeys(self._names, 0)
        self._recent: deque[Asked] = deque(maxlen=_RECENT)
        self._made = 0

    def next(self) -> Asked:
        """The next command."""
        chance = self._chance.random()
        if chance < self._mix.duplicates and self._recent:
            return self._chance.choice(self._recent)._replace(intent=Intent.DUPLICATE)
        stream = self._chance.choices(self._names, cum_weights=self._weights)[0]
        version = self._versions[stream]
        if chance > 1 - self._mix.conflicts:
            # A version that the stream will not have had: it is 0 or more, and each stream begins at 0.
            return self._asked(stream, version + 1_000_000, Intent.CONFLICT)
        self._versions[stream] = version + self._mix.events
        asked = self._asked(stream, version, Intent.ACCEPTED)
        self._recent.append(asked)
        return asked

    def set_version(self, stream: str, version: int) -> None:
        """Go on from a version that a reply has told, where it is not the one that was reckoned with."""
        self._versions[stream] = version

    def some_stream(self) -> tuple[str, int]:
        """A stream to read, by the same law, and the version that it may have come to."""
        stream = self._chance.choices(self._names, cum_weights=self._weights)[0]
        return stream, self._versions[stream]

    def _asked(self, stream: str, version: int, intent: Intent) -> Asked:
        self._made += 1
        command_id = str(uuid7())
        events = ",".join(
            f'{{"event_id":"{uuid7()}","type":"Stressed","data":{{"n":{self._made},"text":"{_TEXT}"}}}}'
            for _ in range(self._mix.events)
        )
        value = f'{{"stream":"{stream}","expected_version":{version},"events":[{events}],"command_id":"{command_id}"}}'
        return Asked(stream, command_id, value.encode(), intent)


def seconds_of(text: str) -> float:
    """A length of time such as 90s, 5m, 1h or 7d, in seconds. Raises `ValueError`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    seconds = float(match[1]) * _UNITS_S[match[2] or "s"] if match else 0.0
    if not seconds:
        raise ValueError(f"{text!r} is no length of time: 90s, 5m, 1h or 7d")
    return seconds
