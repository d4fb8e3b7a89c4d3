import platform
import subprocess
import sys

import pytest

_TAKES_AND_FREES = """
import resource, sys
from processor.cli.tuning import tune_interpreter
if sys.argv[1] == "tuned":
    tune_interpreter()

def cycle():
    taken = [bytes(64_000) for _ in range(200)]

cycle()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    cycle()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _page_faults(how: str) -> int:
    run = subprocess.run([sys.executable, "-c", _TAKES_AND_FREES, how], check=True, capture_output=True, text=True)
    return int(run.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told what to keep")
def test_memory_that_a_cycle_has_freed_is_there_for_the_next_one() -> None:
    assert _page_faults("tuned") < _page_faults("plain") / 4
