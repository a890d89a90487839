"""A training with averaging that was interrupted goes on to the same bits."""

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from tests.support.averaging import EMA, SWA, Watched, same, state_of
from tests.support.training import StoppedError, reproducible
from trainflat.core.errors import InputError
from trainflat.training import checkpoints


@pytest.mark.parametrize(
    ("averaging", "every", "keep"),
    [
        (SWA, 5, "best"),
        (EMA, "epoch", "last"),
        pytest.param(SWA, "epoch", "last", marks=pytest.mark.slow),
        pytest.param(EMA, 5, "best", marks=pytest.mark.slow),
    ],
)
def test_resuming_continues_the_same_average(tmp_path: Path, averaging: dict[str, Any], keep: str, every: Any) -> None:
    """From a checkpoint without an average and from one with: the same bits, scores and log."""
    options = {"load_best_model_at_end": keep == "best", "logging_steps": 4}
    if every != "epoch":
        options |= {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": every, "save_steps": every}
    whole = Watched(tmp_path / "whole", averaging, **options)
    whole.trainer.train()

    for until in (14, 23):
        folder = tmp_path / str(until)
        begun = Watched(folder, averaging, **options)
        step = begun.trainer.training_step

        def stopping(*args: Any, begun: Watched = begun, step: Any = step, until: int = until) -> Tensor:
            if begun.trainer.state.global_step == until:
                raise StoppedError
            return step(*args)

        begun.trainer.training_step = stopping
        with pytest.raises(StoppedError):
            begun.trainer.train()
        again = Watched(folder, averaging, **options)
        checkpoint = checkpoints.newest(folder)
        again.trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        assert same(state_of(again.trainer.model), state_of(whole.trainer.model))
        assert all(same(state, whole.scored[step]) for step, state in again.scored.items())
        assert reproducible(again.trainer) == reproducible(whole.trainer)
        assert again.trainer.features["averaging"].models == whole.trainer.features["averaging"].models


@pytest.mark.parametrize(("before", "after"), [(SWA, None), (None, SWA)], ids=["with-without", "without-with"])
def test_a_checkpoint_goes_on_as_it_began(tmp_path: Path, before: Any, after: Any) -> None:
    Watched(tmp_path, before, num_train_epochs=1, load_best_model_at_end=False).trainer.train()
    again = Watched(tmp_path, after, num_train_epochs=1, load_best_model_at_end=False)
    words = "was written with averaging and cannot go on without" if before else "was written without averaging"
    with pytest.raises(InputError, match=words):
        again.trainer.train(resume_from_checkpoint=str(checkpoints.newest(tmp_path)))
