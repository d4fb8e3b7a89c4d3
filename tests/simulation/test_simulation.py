"""Seeds of the simulation, and that it would notice: each safeguard that is switched off makes some seed fail."""

import os
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from tests.simulation.broken import WITHOUT
from tests.simulation.run import run_seed, run_seeds

SEEDS = int(os.environ.get("TIDEMARK_TEST_SEEDS", "2000"))
_PIECES = 8
_ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.simulation
Record = Callable[[str, object], None]


@pytest.mark.timeout(120 + SEEDS // 10)
@pytest.mark.parametrize("piece", range(_PIECES))
def test_every_promise_is_kept(piece: int, record_property: Record) -> None:
    results = run_seeds(range(piece, SEEDS, _PIECES))
    failed = [result for result in results if result.violation]
    record_property("seeds", len(results))
    record_property("failed_seeds", " ".join(str(result.seed) for result in failed))
    assert not failed, f"{failed[0]}; python -m tests.simulation --seed {failed[0].seed} --trace shows what happened"


@pytest.mark.parametrize("safeguard", WITHOUT)
def test_a_safeguard_that_is_switched_off_is_missed(safeguard: str, record_property: Record) -> None:
    record_property("safeguard", safeguard)
    results = (run_seed(seed, WITHOUT[safeguard]) for seed in range(100))
    noticed = next((result for result in results if result.violation), None)
    assert noticed is not None
    record_property("noticed", f"the simulation, seed {noticed.seed}: {noticed.violation}")


def fingerprint(seeds: range) -> str:
    """All that happens in some seeds, in short."""
    results = [run_seed(seed, trace=True) for seed in seeds]
    return sha256(repr([(result.violation, result.notes) for result in results]).encode()).hexdigest()


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_a_seed_is_the_same_in_another_process(hash_seed: str) -> None:
    script = f"from {__name__} import fingerprint; print(fingerprint(range(30)))"
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    found = subprocess.run([sys.executable, "-c", script], cwd=_ROOT, env=environment, capture_output=True, check=True)
    assert found.stdout.decode().strip() == fingerprint(range(30))
