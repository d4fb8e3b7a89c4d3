"""SQLite's file with bytes that nobody wrote: whatever part they are in, what is raised is `StoreDamaged`."""

from pathlib import Path

import pytest

from processor.errors import StoreDamaged
from processor.stores import open_store
from processor.stores.migrate import upgrade

PARTITIONS = 4


@pytest.mark.parametrize("read_only", [True, False], ids=["reader", "worker"])
@pytest.mark.parametrize("text", [b"CREATE TABLE events", b"CREATE TABLE streams", b"SQLite format 3"])
async def test_text_that_is_no_text_any_more(tmp_path: Path, text: bytes, *, read_only: bool) -> None:
    path = tmp_path / "tidemark.db"
    upgrade(f"sqlite:///{path}", partitions=PARTITIONS)
    data = path.read_bytes()
    at = data.index(text) + 3
    path.write_bytes(data[:at] + b"\xef" + data[at + 1 :])
    store = open_store(f"sqlite:///{path}", partitions=PARTITIONS, read_only=read_only)
    with pytest.raises(StoreDamaged):
        await store.open()
    await store.close()
