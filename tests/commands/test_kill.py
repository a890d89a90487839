"""A run killed with SIGKILL at any moment and started again ends as if nothing had happened, to the bit."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.kill import STORE, TRAINER, assert_unharmed, kill
from tests.support.kill_options import ADAMW, SAM
from trainflat.records.run import Record

SWA = {"name": "swa", "start": 0.2, "every": 0.4}

IN_TRAINING = [(f"{TRAINER}.training_step", n) for n in (1, 7, 40)]
IN_A_CHECKPOINT = [
    (f"{TRAINER}._save_optimizer_and_scheduler", 1),  # the weights are there, the moments are not
    (f"{TRAINER}._save_rng_state", 3),
    ("trainflat.training.checkpoints:seal", 2),  # every file is there, the manifest is not
    ("trainflat.training.checkpoints:remove", 2),  # sealed, older ones not yet deleted
    ("trainflat.core.files:os.fsync", 5),  # in the middle of writing a small file
]
BETWEEN_ROUNDS = [
    (f"{TRAINER}._load_best_model", 1),  # trained, the best weights not yet taken
    (f"{STORE}:seal", 1),  # a stage written but not sealed
    (f"{STORE}:forget", 2),  # sealed, its checkpoints not yet deleted
    ("trainflat.pruning.masks:Masks.save", 1),
    ("trainflat.records.run:Record.save", 1),  # all done but the record
]
IN_AVERAGING = [
    (f"{TRAINER}.training_step", 25),  # between two of its models, some of them in a checkpoint
    ("trainflat.training.features.base:save_tensors", 3),  # the weights are in the checkpoint, the average is not
    (f"{TRAINER}._load_best_model", 1),
]
# One of each kind, which strike one run in turn in the order in which it comes by; `make test-all` kills at each alone.
QUICK = [
    IN_TRAINING[1],
    IN_A_CHECKPOINT[0],
    IN_A_CHECKPOINT[2],
    BETWEEN_ROUNDS[1],
    BETWEEN_ROUNDS[2],
    BETWEEN_ROUNDS[4],
]


@pytest.mark.long
@pytest.mark.parametrize(
    "points",
    [
        [QUICK],
        pytest.param(IN_TRAINING + IN_A_CHECKPOINT, marks=pytest.mark.slow),
        pytest.param(BETWEEN_ROUNDS, marks=pytest.mark.slow),
    ],
    ids=["quick", "in-training-and-saving", "between-rounds"],
)
def test_a_killed_run_ends_like_one_that_was_not(tmp_path: Path, points: list[Any]) -> None:
    assert_unharmed(tmp_path, kill(tmp_path, SAM, points))


@pytest.mark.slow
def test_a_killed_run_of_adamw_ends_on_the_same_average(tmp_path: Path) -> None:
    assert_unharmed(tmp_path, kill(tmp_path, ADAMW, IN_AVERAGING, averaging=SWA))
    [whole] = (tmp_path / "runs" / "0").iterdir()
    trainings = [stage.training for stage in Record.load(whole).stages]
    assert all(t is not None and t.averaging is not None and t.averaging.models > 1 for t in trainings)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", [SAM, ADAMW], ids=["sam", "adamw"])
def test_a_run_killed_at_random_moments(tmp_path: Path, optimizer: dict[str, Any]) -> None:
    assert_unharmed(tmp_path, kill(tmp_path, optimizer, [("after", 3.0)] * 12))
