from benchmarks.load import commands
from benchmarks.telemetry import traced
from processor.telemetry.tracing import _is_sampled, _perhaps_sampled


def test_one_command_in_a_hundred_is_sampled() -> None:
    records = traced(commands(1_000))
    assert len({record.headers for record in records}) == 1_000
    assert sum(map(_is_sampled, records)) == 10
    assert [record for record in _perhaps_sampled(records) if _is_sampled(record)] == records[99::100]
