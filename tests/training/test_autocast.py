"""Every optimizer of the table under bf16 autocast: the path of a plain loop, weights that stay float32, zeros."""

from pathlib import Path

import pytest
import torch
from accelerate.utils import convert_outputs_to_fp32

from tests.conftest import tiny_bert
from tests.support.marks import quick
from tests.support.optimizer_family import recipe
from tests.support.plain_loop import collate, random_split, train
from tests.support.training import NO_DROPOUT, arguments, assert_same_weights
from trainflat.optim import OPTIMIZERS
from trainflat.pruning import MagnitudePruner
from trainflat.training import FlatTrainer

ROWS = 24


# One of each kind of step: without displacement, two passes, what is remembered, rows chosen, one pass, a walk.
KINDS = ("adamw", "sam", "looksam", "esam", "msam", "entropy-sgd")


@pytest.mark.parametrize("name", quick(OPTIMIZERS, *KINDS))
def test_bf16_takes_the_steps_of_a_plain_loop_and_zeros_stay(tmp_path: Path, name: str) -> None:
    """Only the forward passes are cast: what an optimizer computes and remembers is float32."""
    by_hand, model = (tiny_bert(**NO_DROPOUT) for _ in range(2))
    masks = MagnitudePruner(by_hand, sparsity=0.6).prune()
    by_hand.forward = convert_outputs_to_fp32(torch.autocast("cpu", torch.bfloat16)(by_hand.forward))
    train(by_hand, random_split(ROWS), recipe(name), epochs=1, batch_size=8, seed=3, masks=masks)

    trainer = FlatTrainer(
        model,
        arguments(tmp_path, num_train_epochs=1, bf16=True),
        train_dataset=random_split(ROWS),
        data_collator=collate,
        optimizer=recipe(name),
        masks=MagnitudePruner(model, sparsity=0.6).prune(),
    )
    trainer.train()
    assert_same_weights(model, by_hand, atol=1e-7)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    masks.check(model)
    remembered = [t for state in trainer.optimizer.state_dict()["state"].values() for t in state.values()]
    assert not any(torch.is_tensor(t) and t.dtype in (torch.bfloat16, torch.float16) for t in remembered)
