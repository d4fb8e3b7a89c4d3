"""What `helm test` runs: append, await the outcome, read the feed, see a duplicate and a conflict.

Appends one event to the stream `tidemark-helm-test`, and says in one line a step what it found.
"""

import asyncio
import os
import sys
import time

from processor.client import Accepted, Client, Conflict, Duplicate, Event
from processor.errors import TidemarkError

STREAM = "tidemark-helm-test"


async def check(tenant: str, timeout_s: float) -> None:
    """Raises `AssertionError` or `TidemarkError` where something is not as it must be."""
    began = time.monotonic()
    event = Event("HelmTested", {"pod": os.environ.get("POD_NAME", "")})
    async with Client(tenant=tenant) as client:
        accepted = await client.append(STREAM, [event], timeout_s=timeout_s)
        assert isinstance(accepted, Accepted), f"an append came to {accepted}"
        print(f"accepted as version {accepted.last_version} in {time.monotonic() - began:.2f} s", flush=True)

        again = await client.append(STREAM, [event], timeout_s=timeout_s)
        assert isinstance(again, Duplicate), f"the same event again came to {again}"
        assert again.last_version == accepted.last_version, f"a duplicate of another version: {again}"
        print(f"duplicate of version {again.last_version}", flush=True)

        late = accepted.last_version - 1
        refused = await client.append(STREAM, [Event("HelmTested")], expected_version=late, timeout_s=timeout_s)
        assert isinstance(refused, Conflict), f"an append to version {late} came to {refused}"
        assert refused.actual_version >= accepted.last_version, f"a conflict with an older version: {refused}"
        print(f"conflict: expected {late}, is {refused.actual_version}", flush=True)

        after = {accepted.partition: accepted.first_position - 1}
        async with asyncio.timeout(timeout_s):
            async for seen in client.events(partitions=[accepted.partition], after=after):
                if seen.event_id == event.event_id:
                    print(f"on the feed at position {seen.position}", flush=True)
                    return


if __name__ == "__main__":
    try:
        asyncio.run(check(sys.argv[1], float(sys.argv[2])))
    except (AssertionError, TidemarkError, TimeoutError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
