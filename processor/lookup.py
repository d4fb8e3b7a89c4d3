"""What the store has to be asked before commands can be decided. Pure.

Looking up event ids is the dearest part of reading. A command that expects exactly the version which its stream has is
new in all likelihood: had it been accepted before, the stream would have gone on since. It is presumed to be new, and
the unique index on event ids is asked in place of the lookup, when its events are written. Where that or the decision
says otherwise, everything is looked up, and decided again.
"""

from collections.abc import Container, Iterable, Mapping
from collections.abc import Set as AbstractSet

from msgspec import UNSET

from processor.decide import event_ids
from processor.messages import Command, Decoded, Head, Log, Record, Wanted

Entry = tuple[Record, Decoded]


def streams_of(entries: Iterable[Entry]) -> list[str]:
    """The streams that the commands are for, each once."""
    return [*dict.fromkeys(decoded.stream for _, decoded in entries if isinstance(decoded, Command))]


def wanted(log: Log, incarnation: int, entries: Iterable[Entry], offsets: list[int]) -> Wanted:
    """All that the decision of these records can depend on, and what was decided at these offsets."""
    ids: dict[str, list[str]] = {}
    commands: list[tuple[str, str]] = []
    for record, decoded in entries:
        if isinstance(decoded, Command):
            command = decoded
            ids.setdefault(command.stream, []).extend(event_ids(log, incarnation, record, command))
            if command.command_id is not UNSET:
                commands.append((command.stream, command.command_id))
    return Wanted(ids, commands, offsets)


def presumed_new(heads: Mapping[str, Head], entries: Iterable[Entry]) -> set[int]:
    """The offsets of the commands that are presumed to be new, by the heads as they are before the first of them.

    Each is taken to leave its stream where an accepted command does; behind one of which that can't be said, no
    command to the same stream is presumed to be new.
    """
    presumed: set[int] = set()
    versions: dict[str, int | None] = {}
    for record, decoded in entries:
        if not isinstance(decoded, Command):
            continue
        command = decoded
        stream, expected = command.stream, command.expected_version
        if stream in versions:
            version = versions[stream]
        else:
            head = heads.get(stream)
            version = head.version if head else 0
        if expected == version or (version == 0 and expected in ("any", "no_stream")):
            presumed.add(record.offset)
            versions[stream] = (version or 0) + len(command.events)
        elif isinstance(expected, str):
            versions[stream] = None
    return presumed


def doubtful(
    log: Log, incarnation: int, entries: Iterable[Entry], presumed: Container[int], refused: AbstractSet[str] | None
) -> Wanted:
    """What to look up beside the heads.

    `presumed` are offsets of commands whose event ids are not asked for, `refused` are the command ids that the log
    remembers refusals of, None where they are not known.
    """
    doubted = wanted(log, incarnation, (entry for entry in entries if entry[0].offset not in presumed), [])
    commands: list[tuple[str, str]] = []
    if refused is None or refused:
        commands = [
            (decoded.stream, decoded.command_id)
            for _, decoded in entries
            if isinstance(decoded, Command)
            and decoded.command_id is not UNSET
            and (refused is None or decoded.command_id in refused)
        ]
    return Wanted(doubted.event_ids, commands, [])
