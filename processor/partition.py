"""The partition of a stream: Kafka's default partitioner, `murmur2(key) mod N`."""

from functools import lru_cache

_MASK = 0xFFFFFFFF
_M = 0x5BD1E995
_SEED = 0x9747B28C


def murmur2(data: bytes) -> int:
    """MurmurHash2, 32 bit, as `org.apache.kafka.common.utils.Utils.murmur2` has it; 0 to 2^32 - 1.

    Source: Austin Appleby's MurmurHash2, with the seed that Kafka's clients share.
    """
    length = len(data)
    h = _SEED ^ length
    whole = length & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * _M & _MASK
        k ^= k >> 24
        h = (h * _M & _MASK) ^ (k * _M & _MASK)
    tail = data[whole:]
    if tail:
        h ^= int.from_bytes(tail, "little")
        h = h * _M & _MASK
    h ^= h >> 13
    h = h * _M & _MASK
    return h ^ (h >> 15)


def partition_of(key: bytes, partitions: int) -> int:
    """The partition, 0 to `partitions` - 1, that a key belongs to."""
    # Keys far beyond any limit arrive, too, and must not fill the memory.
    return _remembered(key, partitions) if len(key) <= 1024 else (murmur2(key) & 0x7FFFFFFF) % partitions


@lru_cache(maxsize=65_536)
def _remembered(key: bytes, partitions: int) -> int:
    return (murmur2(key) & 0x7FFFFFFF) % partitions
