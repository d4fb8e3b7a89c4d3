"""The unique constraints are the backstop: what no decision would do is a fault, and leaves no trace."""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from processor.errors import StoreDamaged
from processor.messages import Head, Plan
from processor.store import Store
from tests.stores.logs import LOG, OTHER, claim, commit, new_events, plan, ship, stream_of, whole_log


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest, sqlite_url: str) -> str:
    """The URL of a new store of each kind that has constraints."""
    if request.param == "sqlite":
        return sqlite_url
    url: str = request.getfixturevalue("postgres_store_url")
    return url


def same_position(plan: Plan) -> Plan:
    return replace(plan, events=[replace(plan.events[0], position=1), *plan.events[1:]])


def same_version(plan: Plan) -> Plan:
    return replace(plan, events=[replace(plan.events[0], version=1), *plan.events[1:]])


def new_number_for_an_old_stream(plan: Plan) -> Plan:
    head = plan.heads[stream_of(LOG)]
    return replace(plan, heads={**plan.heads, stream_of(LOG): Head(77, head.version)})


def old_number_for_a_new_stream(plan: Plan) -> Plan:
    return replace(plan, heads={**plan.heads, "order-new": Head(1, 1)})


def same_refusal(plan: Plan) -> Plan:
    return replace(plan, refused=plan.refused * 2)


@pytest.mark.parametrize("size", [1, 500], ids=["few", "many"])
@pytest.mark.parametrize(
    "damage",
    [
        same_position,
        same_version,
        new_number_for_an_old_stream,
        old_number_for_a_new_stream,
        same_refusal,
    ],
)
async def test_a_violation_is_a_fault_and_never_a_success(
    store: Store, damage: Callable[[Plan], Plan], size: int
) -> None:
    checkpoints = await store.claim([LOG, OTHER])
    done = await commit(store, LOG, checkpoints[LOG], ship(LOG, 1), b"no command")
    commands: list[dict[str, Any] | bytes] = [ship(LOG, 2), b"no command", *new_events(range(100, 100 + size))]
    damaged = damage(await plan(store, LOG, done.after, *commands))
    good = await plan(store, OTHER, checkpoints[OTHER], ship(OTHER, 1))
    with pytest.raises(StoreDamaged) as caught:
        await store.commit([good, damaged])
    assert "\n" not in str(caught.value)
    assert await store.checkpoints() == {LOG: done.after, OTHER: checkpoints[OTHER]}
    assert await whole_log(store) == done.events
    again = await commit(store, LOG, await claim(store), ship(LOG, 2))
    assert again.after.next_position == 3
