"""Gates beside optimizers that do something else to a group than displace it: scores are no weights."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import tiny_bert
from tests.support.gated_runs import recipe
from tests.support.gated_steps import SCORED, batches, begun, model
from tests.support.gated_training import HARD, RECIPES, trained
from tests.support.marks import quick
from tests.support.training import NO_DROPOUT, arguments
from trainflat.commands.check import plan
from trainflat.core.errors import InputError
from trainflat.optim import OPTIMIZERS, FlatOptimizer, L1Penalty
from trainflat.pruning.gates import LearnedMask
from trainflat.training import FlatTrainer

STILL = 1e-30  # a learning rate: the weights rest, the scores have their own
OTHERS = [name for name, one in OPTIMIZERS.items() if issubclass(one, FlatOptimizer) and not one.rho_only_displaces]


def assert_same_scores(one: LearnedMask, other: LearnedMask) -> None:
    for name, score in one.scores.items():
        assert torch.equal(score, other.scores[name]), name
        assert (score != one.function.first_score).any()


@pytest.mark.parametrize("name", quick(SCORED, "hard-movement"))  # it is said of a group, which is made in one place
@pytest.mark.parametrize("names", [None, []], ids=["by-default", "everything"])
def test_l1_pulls_no_scores_in_the_trainer(tmp_path: Path, name: str, names: Any) -> None:
    found = []
    for penalty in (5.0, 0.0):
        optimizer = {"name": "l1", "base": "sgd", "penalty": penalty, "lr": STILL, "exclude": names}
        bert = tiny_bert(**NO_DROPOUT).double()
        trainer = trained(tmp_path, optimizer, {"name": name, **RECIPES[name]}, model=bert, max_steps=8)
        assert isinstance(trainer.features["gate"].gate, LearnedMask)
        found.append(trainer.features["gate"].gate)
    assert_same_scores(*found)


def test_l1_pulls_no_scores_in_a_loop_of_ones_own() -> None:
    found = []
    for l1 in (True, False):
        bert = model()
        gate = begun(bert, "l0", SCORED["l0"])
        groups = [{"params": bert.parameters()}, {"params": gate.scores.values(), **gate.score_group()}]
        sgd: Any = torch.optim.SGD
        optimizer = L1Penalty(groups, sgd, 5.0, lr=STILL) if l1 else sgd(groups, lr=STILL)
        for step, batch in enumerate(batches(3)):
            optimizer.zero_grad()
            with gate.passes():
                bert(**batch).loss.backward()
            optimizer.step()
            gate.advance(step + 1)
        found.append(gate)
    assert_same_scores(*found)


@pytest.mark.parametrize("perturb", ["weights", "scores", "both", "none"])
def test_the_group_of_the_scores_says_what_is_displaced(perturb: Any) -> None:
    gate = begun(model(), "hard-movement", SCORED["hard-movement"] | {"perturb": perturb})
    group = gate.score_group()
    assert group["weight_decay"] == 0 and group["lr"] == 1e-2
    assert group.get("rho") == (None if perturb in ("scores", "both") else 0.0)


@pytest.mark.parametrize("optimizer", OTHERS)
def test_only_what_displaces_can_be_told_what(tmp_path: Path, place: Path, optimizer: str) -> None:
    gate = HARD | {"perturb": "both"}
    with pytest.raises(InputError, match=r"what an optimizer like SAM displaces, and \w+ is not one. Leave it out"):
        trained(tmp_path, {"name": optimizer, "lr": 1e-3}, gate)
    with pytest.raises(InputError, match=rf"optimizer like sam displaces, and {optimizer} is not one. Leave it out"):
        plan(recipe(place, gate, optimizer), out=tmp_path)


def test_those_others_are_known() -> None:
    assert OTHERS == ["cram", "entropy-sgd", "label-noise", "l1"]


def test_a_scheduler_that_does_not_know_the_scores_is_refused(tmp_path: Path) -> None:
    one = tiny_bert()
    optimizer = torch.optim.AdamW(one.parameters(), lr=1e-3)
    linear = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 12)
    with pytest.raises(InputError, match=r"'hard-movement' adds its scores .* Give optimizers=\(optimizer, None\)"):
        FlatTrainer(one, arguments(tmp_path), gate=HARD, optimizers=(optimizer, linear))
    FlatTrainer(one, arguments(tmp_path), gate="magnitude", optimizers=(optimizer, linear))
