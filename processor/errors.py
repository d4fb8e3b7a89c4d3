"""Operational faults, the only things that are raised. What a command comes to is a value (`messages.Outcome`).

TidemarkError
├── SettingsError        wrong or contradicting settings                     exit code 2
├── Unreachable          the broker or the store does not answer             exit code 3
│   ├── BrokerUnreachable
│   ├── StoreUnreachable     also: a transaction whose end is not known
│   └── OutcomeUnknown       a command was sent, or may have been, and not answered in time
├── SchemaMismatch       the store's schema is not the one this code needs   exit code 2
├── TopicMismatch        a topic is missing, or has other partitions         exit code 2
├── StoreInUse           another process has the store                       exit code 2
├── NotSent              the broker will never take the command              exit code 1
├── FeedGap              positions that were asked for are not on the feed   exit code 1
├── Misfit               a log and the store do not belong together          exit code 1
└── StoreDamaged         the store holds what nobody wrote                   exit code 1
"""
# ruff: noqa: N818  a name that says what is the matter needs no suffix

from processor.messages import Command

__all__ = [
    "BrokerUnreachable",
    "FeedGap",
    "Misfit",
    "NotSent",
    "OutcomeUnknown",
    "SchemaMismatch",
    "SettingsError",
    "StoreDamaged",
    "StoreInUse",
    "StoreUnreachable",
    "TidemarkError",
    "TopicMismatch",
    "Unreachable",
]


class TidemarkError(Exception):
    """The root. Its text is one line that says what is wrong and what to do."""

    exit_code = 1


class SettingsError(TidemarkError):
    """Settings that can't be used; the text names all of them."""

    exit_code = 2


class Unreachable(TidemarkError):
    """Something that is needed does not answer; trying again later may help."""

    exit_code = 3


class BrokerUnreachable(Unreachable):
    """No broker answered in time, or the cluster can't serve the request now."""


class StoreUnreachable(Unreachable):
    """The store did not answer, or the connection broke: the transaction's end is not known."""


class OutcomeUnknown(Unreachable):
    """A command was not answered in time: it may be decided, now or later, or never arrive.

    `command` is what was sent, all ids in it: sent again as it is, it is never appended twice.
    """

    def __init__(self, text: str, command: Command) -> None:
        super().__init__(text)
        self.command = command


class NotSent(TidemarkError):
    """The broker will never take the command, as it is too large or not allowed: it is not in the log."""


class FeedGap(TidemarkError):
    """The feed goes on behind positions that were asked for: they were deleted, or the topic was made anew."""


class SchemaMismatch(TidemarkError):
    """The store has no schema, an older or a newer one, or was made for another number of partitions."""

    exit_code = 2


class TopicMismatch(TidemarkError):
    """A topic is missing or does not look as it must."""

    exit_code = 2


class StoreInUse(TidemarkError):
    """A store for one process is held by another one."""

    exit_code = 2


class Misfit(TidemarkError):
    """A log that does not fit the store: nothing is guessed, the log stands still until an operator chooses."""


class StoreDamaged(TidemarkError):
    """The store returned what can't have been written: a hole, a broken chain, an unreadable page."""
