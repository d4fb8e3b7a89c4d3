"""Whether a log and a store belong together."""

import pytest
from msgspec.structs import replace

from processor.chain import fingerprint, genesis
from processor.errors import Misfit
from processor.fit import Found, check_first_record, check_fit
from processor.messages import Checkpoint
from tests.records import LOG, SomeRecord

STORE = Checkpoint(epoch=3, next_offset=10, next_position=8, streams=2, chain=genesis(LOG))
FITS = Found(begin=0, end=12, acknowledged=10, feed_position=7)


@pytest.mark.parametrize(
    "found",
    [
        FITS,
        replace(FITS, end=10),
        replace(FITS, begin=10),
        replace(FITS, acknowledged=None),
        replace(FITS, acknowledged=2, feed_position=0),
    ],
    ids=["in step", "all decided", "only what is decided was deleted", "a new group", "not all is published"],
)
def test_what_a_store_can_have_come_from_fits(found: Found) -> None:
    check_fit(LOG, STORE, found, rebuilding=False)


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (replace(FITS, end=9), "recover new-log"),
        (replace(FITS, begin=11), "recover skip-deleted"),
        (replace(FITS, feed_position=8), "--rebuild"),
        (replace(FITS, acknowledged=11), "--rebuild"),
    ],
    ids=["the log is shorter", "undecided commands are gone", "the feed is ahead", "answers are ahead"],
)
def test_what_it_can_not_have_come_from_is_told_with_the_choices(found: Found, says: str) -> None:
    with pytest.raises(Misfit, match=says) as misfit:
        check_fit(LOG, STORE, found, rebuilding=False)
    assert str(misfit.value).startswith(f"{LOG}: ")


def test_a_store_that_is_rebuilt_may_be_behind_but_needs_its_commands() -> None:
    check_fit(LOG, STORE, replace(FITS, feed_position=8, acknowledged=11), rebuilding=True)
    with pytest.raises(Misfit):
        check_fit(LOG, STORE, replace(FITS, begin=11), rebuilding=True)


def test_the_last_decided_record_tells_one_log_from_another() -> None:
    record = SomeRecord(9, b"{}", b"order-1", 5, ())
    store = replace(STORE, last_offset=9, last_digest=fingerprint(record))
    check_first_record(LOG, store, record)
    check_first_record(LOG, store, record._replace(offset=10, value=b"later"))
    for other in (record._replace(value=b"[]"), record._replace(key=b"order-2"), record._replace(timestamp=6)):
        with pytest.raises(Misfit, match="is not the one"):
            check_first_record(LOG, store, other)
