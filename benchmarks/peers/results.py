"""What was measured side by side, as a table on the terminal and in the documentation."""

import sys
from pathlib import Path
from typing import Any, NamedTuple

from msgspec import Struct, field
from rich.console import Console
from rich.table import Table

from benchmarks.peers.work import KINDS, MANY, ONE, PIPELINED, READ_FEED, READ_STREAM
from benchmarks.report import RESULT

PEERS_RESULT: Path = RESULT.parent / "peers.json"

_OURS = "Tidemark"
_WIDTH = 150
# With more clients a peer may be slower than with fewer: its best counts.
_AGAINST = {PIPELINED: (ONE, MANY, PIPELINED)}
_WHY = {
    ONE: "each append waits for the commit of a whole cycle, and through Kafka for two passages through the broker too",
    MANY: "with few commands at a time there is little to share in a cycle, whose cost hardly depends on how many "
    "there are; through Kafka each waits for two passages through the broker as well",
    PIPELINED: "broker, worker and client share the processors, and both ends are Python",
    READ_STREAM: "rows become objects in Python, where a client of native code hands over what it has decoded",
    READ_FEED: "each event is a Kafka record with a dozen headers, or a row, that Python takes apart; a client of "
    "native code decodes beside it",
}


class Side(Struct):
    """Rates by who did the work and by kind, in events a second; and whoever was left out, with the reason."""

    seconds: float
    rates: dict[str, dict[str, float]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


class Peers(Struct):
    """All of it, as `.build/peers.json` has it."""

    machine: dict[str, Any]
    normal: Side | None = None
    slow_disk: Side | None = None


class Compared(NamedTuple):
    """The best of ours beside the best of the peers at one kind of work."""

    kind: str
    ours: str
    our_rate: float
    peer: str
    peer_rate: float

    @property
    def ratio(self) -> float:
        return self.our_rate / self.peer_rate


def compared(side: Side) -> list[Compared]:
    """By kind of work; without those that only one side did."""
    found = []
    for kind in KINDS:
        ours = [(rates[kind], name) for name, rates in side.rates.items() if name.startswith(_OURS) and kind in rates]
        against = _AGAINST.get(kind, (kind,))
        peers = [
            (rates[other], name)
            for name, rates in side.rates.items()
            for other in against
            if not name.startswith(_OURS) and other in rates
        ]
        if ours and peers:
            (our_rate, our_name), (peer_rate, peer) = max(ours), max(peers)
            found.append(Compared(kind, our_name, our_rate, peer, peer_rate))
    return found


def notes(side: Side) -> list[str]:
    """Where a peer is ahead and why, and who was left out."""
    behind = [one for one in compared(side) if one.ratio < 1]
    lost = [
        f"{one.kind}: {one.peer} is ahead, {one.peer_rate:,.0f} against {one.our_rate:,.0f} ({one.ours}): "
        f"{_WHY[one.kind]}."
        for one in behind
    ]
    return lost + [f"{name}: left out: {reason}." for name, reason in side.left_out.items()]


def rows(side: Side) -> list[list[str]]:
    """Cells of the table, the heading first and the ratios last."""
    table = [["events a second", *KINDS]]
    for name, rates in side.rates.items():
        table.append([name, *(f"{rates[kind]:,.0f}" if kind in rates else "-" for kind in KINDS)])
    ratios = {one.kind: f"{one.ratio:.2g} x" for one in compared(side)}
    table.append(["Tidemark's best to the best peer's", *(ratios.get(kind, "-") for kind in KINDS)])
    return table


def print_side(side: Side, title: str) -> None:
    """For people."""
    heading, *lines = rows(side)
    table = Table(title=title)
    for number, text in enumerate(heading):
        table.add_column(text, justify="right" if number else "left")
    for line in lines:
        table.add_row(*line)
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    console.print(table)
    for note in notes(side):
        console.print(note, highlight=False, markup=False)


def document(peers: Peers) -> str:
    """The same in Markdown, with and without a slow disk."""
    on = peers.machine
    parts = [f"{on['processors']} processors for servers and clients together; {on['system']}, Python {on['python']}."]
    for side, title in ((peers.normal, None), (peers.slow_disk, "Each sync of the disk 2 ms longer:")):
        if side is not None:
            parts += [*([title] if title else []), _markdown(side), "\n".join(f"- {note}" for note in notes(side))]
    return "\n\n".join(part for part in parts if part) + "\n"


def _markdown(side: Side) -> str:
    heading, *lines = rows(side)
    table = [heading, ["---", *["--:"] * (len(heading) - 1)], *lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in table)
