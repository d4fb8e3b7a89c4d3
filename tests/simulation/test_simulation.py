"""Seeds of the simulation, and that it would notice: each safeguard that is switched off makes some seed fail."""

import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from tests.simulation.broken import WITHOUT
from tests.simulation.run import run_seed, run_seeds

SEEDS = 2_000
_PIECES = 8
_ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("piece", range(_PIECES))
def test_every_promise_is_kept(piece: int) -> None:
    failed = [result for result in run_seeds(range(piece, SEEDS, _PIECES)) if result.violation]
    assert not failed, f"{failed[0]}; python -m tests.simulation --seed {failed[0].seed} --trace shows what happened"


@pytest.mark.parametrize("safeguard", WITHOUT)
def test_a_safeguard_that_is_switched_off_is_missed(safeguard: str) -> None:
    assert any(run_seed(seed, WITHOUT[safeguard]).violation for seed in range(100))


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
