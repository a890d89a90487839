"""A gated run killed with SIGKILL and started again ends as if nothing had happened, to the bit."""

from pathlib import Path

import pytest

from tests.support.kill import TRAINER, assert_unharmed, kill
from tests.support.kill_options import SAM

GATE = {
    "name": "hard-movement",
    "sparsity": 0.7,
    "refresh": 4,
    "perturb": "both",
    "schedule": {"name": "cubic", "start": 2, "hold": 4},
}
POINTS = [
    (f"{TRAINER}.training_step", 9),
    ("trainflat.training.features.base:save_tensors", 2),  # the weights are in the checkpoint, the scores are not
    (f"{TRAINER}._load_best_model", 1),
]


@pytest.mark.slow
def test_a_killed_run_with_a_gate_ends_like_one_that_was_not(tmp_path: Path) -> None:
    protocol = {"name": "gradual", "gate": GATE}
    assert_unharmed(tmp_path, kill(tmp_path, SAM, POINTS, protocol=protocol))
