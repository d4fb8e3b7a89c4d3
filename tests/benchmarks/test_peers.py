import sys
from itertools import islice
from pathlib import Path

import pytest

from benchmarks.document import put
from benchmarks.peers.installing import _installed, _run, npm_packages
from benchmarks.peers.results import Peers, Side, compared, document, notes, rows
from benchmarks.peers.slow_disk import DELAY_MS, run_on_slow_disk
from benchmarks.peers.work import DATA, MANY, ONE, PIPELINED, READ_FEED, STREAMS, by_threads, places, whole
from tests.servers import CannotRun


@pytest.fixture
def side() -> Side:
    return Side(
        1.0,
        {
            "Tidemark through Kafka": {ONE: 30.0, MANY: 400.0, PIPELINED: 9_000.0, READ_FEED: 100.0},
            "Tidemark's store": {ONE: 900.0, MANY: 5_000.0, READ_FEED: 200.0},
            "one": {ONE: 450.0, MANY: 6_000.0, READ_FEED: 100.0},
            "other": {ONE: 300.0, MANY: 500.0, PIPELINED: 3_000.0},
        },
        {"third": "needs npm"},
    )


def test_the_best_are_compared_and_a_peer_counts_with_as_many_clients_as_suit_it(side: Side) -> None:
    found = {one.kind: (one.ours, one.peer, one.ratio) for one in compared(side)}
    assert found == {
        ONE: ("Tidemark's store", "one", 2.0),
        MANY: ("Tidemark's store", "one", 5 / 6),
        PIPELINED: ("Tidemark through Kafka", "one", 1.5),
        READ_FEED: ("Tidemark's store", "one", 2.0),
    }


def test_the_notes_say_where_a_peer_is_ahead_and_what_was_left_out(side: Side) -> None:
    ahead, left_out = notes(side)
    assert ahead.startswith(f"{MANY}: one is ahead, 6,000 against 5,000 (Tidemark's store): ")
    assert left_out == "third: left out: needs npm."


def test_the_table_has_what_was_measured_and_the_ratios(side: Side) -> None:
    table = rows(side)
    assert {len(row) for row in table} == {6}
    assert table[2] == ["Tidemark's store", "900", "5,000", "-", "-", "200"]
    assert table[-1][1:] == ["2 x", "0.83 x", "1.5 x", "-", "2 x"]


def test_the_table_goes_between_its_marks_and_nowhere_else(side: Side) -> None:
    page = "a\n<!-- measured: by it -->\nold\n<!-- end -->\nb\n<!-- side by side: by it -->\nold\n<!-- end -->\nc\n"
    block = document(Peers({"processors": 2, "system": "S", "python": "3"}, None, side))
    new = put(page, "side by side", block)
    assert new == page.replace("by it -->\nold\n<!-- end -->\nc", f"by it -->\n{block}<!-- end -->\nc")
    assert "\n| one | 450 | 6,000 | - | - | 100 |\n" in block
    assert "Each sync of the disk 2 ms longer:" in block


def test_clients_share_the_streams_and_go_on_from_their_own_versions() -> None:
    each = STREAMS // 16
    seen = [list(islice(places(client, 16), each + 1)) for client in range(16)]
    assert sorted(stream for places in seen for stream, version in places if version == 1) == list(range(STREAMS))
    assert all(places[-1] == (places[0][0], 2) for places in seen)


def test_an_append_that_fails_fails_the_run() -> None:
    def append(client: int, stream: int, version: int) -> None:
        if client == 3:
            raise ValueError("refused")

    with pytest.raises(ValueError, match="refused"):
        by_threads(append, 4, 30.0)


def test_an_event_without_its_payload_does_not_count() -> None:
    assert whole([DATA, DATA]) == 2
    with pytest.raises(ValueError, match="2 events came with 250 bytes, not 500"):
        whole([DATA, b""])


@pytest.fixture
def without_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.mark.usefixtures("without_tools")
def test_a_tool_that_is_missing_is_named() -> None:
    with pytest.raises(CannotRun, match="needs npm"):
        npm_packages("peer", ["peer@1"])
    with pytest.raises(CannotRun, match="needs Linux and a C compiler"):
        run_on_slow_disk(["true"])


def test_what_is_installed_is_not_installed_again_unless_it_is_of_other_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made: list[Path] = []

    def install(folder: Path) -> None:
        assert list(folder.iterdir()) == []
        (folder / "program").touch()
        made.append(folder)

    folder = _installed("peer", ["peer==1"], install)
    assert _installed("peer", ["peer==1"], install) == folder
    assert made == [folder]
    assert _installed("peer", ["peer==2"], install) == folder
    assert made == [folder, folder]


def test_what_could_not_be_installed_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def fail(folder: Path) -> None:
        _run([sys.executable, "-c", "import sys; sys.exit('no such version')"], folder, 60.0)

    for _ in range(2):
        with pytest.raises(CannotRun, match="failed: no such version"):
            _installed("peer", ["peer==1"], fail)


_SYNCS = """
import mmap, os, sys, tempfile, time
with tempfile.TemporaryFile() as file:
    file.truncate(mmap.PAGESIZE)
    with mmap.mmap(file.fileno(), mmap.PAGESIZE) as mapped:
        for sync in (lambda: os.fsync(file.fileno()), lambda: os.fdatasync(file.fileno()), mapped.flush):
            begin = time.perf_counter()
            sync()
            print((time.perf_counter() - begin) * 1000, file=sys.stderr)
"""


def test_every_kind_of_sync_is_slow_on_a_slow_disk(tmp_path: Path) -> None:
    told = tmp_path / "told"
    program = f"import sys; sys.stderr = open({str(told)!r}, 'w')\n{_SYNCS}"
    try:
        assert run_on_slow_disk([sys.executable, "-c", program]) == 0
    except CannotRun as reason:
        pytest.skip(str(reason))
    times_ms = [float(line) for line in told.read_text().splitlines()]
    assert len(times_ms) == 3
    assert min(times_ms) >= DELAY_MS
