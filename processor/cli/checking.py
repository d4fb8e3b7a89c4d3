"""The work of `tidemark verify`: the store by itself, then the feed against the store."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from processor.cli.progress import progress
from processor.cli.reading import opened_store
from processor.kafka.feed_check import FeedReport, check_feed
from processor.messages import Log
from processor.settings import Settings
from processor.verify import Report, verify_store


async def check(settings: Settings, *, feed: bool) -> tuple[Report, dict[Log, FeedReport]]:
    """Check every log of the store and, with `feed`, what is on the feed now.

    Raises what the store and the broker raise.
    """
    async with opened_store(settings) as store:
        checkpoints = await store.checkpoints()
        total = sum(checkpoint.next_position - 1 for checkpoint in checkpoints.values())
        with _counting("store", total) as count:
            report = await verify_store(store, settings.tenants, settings.partitions, count)
        feeds: dict[Log, FeedReport] = {}
        if feed:
            with _counting("feed", total) as count:
                for tenant in settings.tenants:
                    feeds |= await check_feed(settings, tenant, store, checkpoints, count)
    report.ok = report.ok and not any(found.problems for found in feeds.values())
    return report, feeds


@contextmanager
def _counting(what: str, total: int) -> Iterator[Callable[[int], None]]:
    done = 0
    with progress(what, total) as bar:

        def count(more: int) -> None:
            nonlocal done
            done += more
            bar.at(done)

        yield count
