"""Every optimizer of the table over the Trainer: the path of a plain loop, zeros, resuming, two processes."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from tests.conftest import tiny_bert
from tests.support.optimizer_family import FLAT, OWN_GRADIENT, recipe
from tests.support.plain_loop import collate, random_split, train
from tests.support.training import NO_DROPOUT, arguments, assert_same_weights, trained
from tests.support.two_processes import pair
from trainflat.optim import OPTIMIZERS
from trainflat.pruning import MagnitudePruner
from trainflat.training import FlatTrainer, checkpoints

names = pytest.mark.parametrize("name", OPTIMIZERS)
CUT = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}


@names
def test_two_micro_batches_take_the_steps_of_a_plain_loop_and_zeros_stay(tmp_path: Path, name: str) -> None:
    """45 rows: the last window is smaller than the others, and so is its last part."""
    given = recipe(name)
    by_hand = tiny_bert(**NO_DROPOUT).double()
    masks = MagnitudePruner(by_hand, sparsity=0.6).prune()
    train(by_hand, random_split(45), given, epochs=1, batch_size=8, seed=3, masks=masks)

    trainer = trained(tmp_path, given, rows=45, masks=0.6, num_train_epochs=1, **CUT)
    assert_same_weights(trainer.model, by_hand)
    assert trainer.masks is not None
    trainer.masks.check(trainer.model)
    zeros = sum(int((p == 0).sum()) for n, p in trainer.model.named_parameters() if n in trainer.masks)
    assert zeros == round(0.6 * trainer.masks.entries)
    asked = {key: value for key, value in given.items() if key != "name"}
    assert trainer.passes.count == pytest.approx(6 * OPTIMIZERS.read({"name": name, **asked}).average_passes)


class KeepsTheThird(TrainerCallback):
    """Copies the checkpoint of step 3 to where a second training finds it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 3:
            shutil.copytree(args.output_dir, self.folder)


@names
def test_resuming_leads_to_the_same_bits(tmp_path: Path, name: str) -> None:
    """With dropout, masks and draws."""

    def trainer_in(folder: Path, *callbacks: TrainerCallback) -> FlatTrainer:
        model = tiny_bert(hidden_dropout_prob=0.1)
        return FlatTrainer(
            model,
            arguments(folder, save_strategy="steps", save_steps=3, num_train_epochs=1, **CUT),
            train_dataset=random_split(),
            data_collator=collate,
            optimizer=recipe(name, **({"probability": 0.3} if name == "label-noise" else {})),
            masks=MagnitudePruner(model, sparsity=0.5).prune(),
            callbacks=list(callbacks),
        )

    whole = trainer_in(tmp_path / "whole", KeepsTheThird(tmp_path / "resumed"))
    whole.train()
    again = trainer_in(tmp_path / "resumed")
    again.train(resume_from_checkpoint=str(checkpoints.newest(tmp_path / "resumed")))
    assert_same_weights(whole.model, again.model, atol=0)
    assert again.passes.count == whole.passes.count
    assert [e["step"] for e in again.state.log_history if "loss" in e] == [1, 2, 3, 4, 5, 6]


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, torch.Tensor]]:
    """What each of two processes holds after training with every flat optimizer, all in one start."""
    out = tmp_path_factory.mktemp("two")
    pair().run("tests.support.ddp_family", str(out))
    return [load_file(out / f"rank{rank}.safetensors") for rank in (0, 1)]


@pytest.mark.long
@pytest.mark.parametrize("name", FLAT)
def test_two_processes_hold_the_same_weights_and_memory(two_processes: Any, name: str) -> None:
    """Displaced each by its own gradient where the method allows, or all by the same one."""
    one, two = two_processes
    mine = [key for key in one if key.split("/")[1] == name]
    assert mine
    assert all(torch.equal(one[key], two[key]) for key in mine)


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in FLAT if name != "esam"])  # whose rows each process selects alone
def test_two_synchronised_processes_take_the_steps_of_one(two_processes: Any, tmp_path: Path, name: str) -> None:
    alone = trained(tmp_path, recipe(name), rows=24, masks=0.6, num_train_epochs=1)
    perturb = "same" if name in OWN_GRADIENT else "own"
    for n, p in alone.model.named_parameters():
        torch.testing.assert_close(two_processes[0][f"{perturb}/{name}/weights/{n}"], p.detach(), rtol=0, atol=1e-10)
