"""How many of a store's connections are in use."""

from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import QueuePool


def connections_of(*engines: AsyncEngine | None) -> tuple[int, int]:
    """In use now, and at the most, of all these engines together."""
    pools = [engine.pool for engine in engines if engine is not None]
    queues = [pool for pool in pools if isinstance(pool, QueuePool)]
    return sum(pool.checkedout() for pool in queues), sum(pool.size() for pool in queues)
