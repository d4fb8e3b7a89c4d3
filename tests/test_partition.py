"""A stream's partition is the one that Kafka's default partitioner gives its name."""

import tracemalloc
from collections.abc import Sequence

import pytest
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.partitioner import murmur2 as aiokafka_murmur2
from hypothesis import given
from hypothesis import strategies as st

from processor.partition import murmur2, partition_of


@pytest.mark.parametrize(
    ("key", "signed"),
    [
        # from the tests of org.apache.kafka.common.utils.Utils
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_that_of_kafkas_java_client(key: bytes, signed: int) -> None:
    assert murmur2(key) == signed & 0xFFFFFFFF


@given(st.binary(max_size=70))
def test_murmur2_is_that_of_aiokafka(key: bytes) -> None:
    assert murmur2(key) & 0x7FFFFFFF == aiokafka_murmur2(key) & 0x7FFFFFFF


@given(st.text(min_size=1, max_size=70).map(str.encode) | st.binary(min_size=1020, max_size=1030), st.integers(1, 300))
def test_the_partition_is_that_of_kafkas_default_partitioner(key: bytes, partitions: int) -> None:
    every: Sequence[int] = range(partitions)
    assert partition_of(key, partitions) == DefaultPartitioner()(key, every, every)


@pytest.mark.parametrize(("name", "partition"), [("order-42", 0), ("order-43", 10), ("Ünïcode", 17)])
def test_a_name_keeps_its_partition(name: str, partition: int) -> None:
    assert partition_of(name.encode(), 32) == partition


def test_keys_beyond_any_limit_do_not_stay_in_memory() -> None:
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(30):
            partition_of(b"%d" % number * 50_000, 32)
        assert tracemalloc.get_traced_memory()[0] - before < 100_000
    finally:
        tracemalloc.stop()
