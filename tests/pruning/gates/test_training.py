"""A gate in FlatTrainer: the steps of a loop by hand, whatever else the trainer does."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from tests.conftest import tiny_bert
from tests.support.gated_training import HARD, by_hand, recipe, trained
from tests.support.marks import quick
from tests.support.plain_loop import collate, random_split
from tests.support.training import ADAMW, NO_DROPOUT, SAM, arguments, assert_same_weights
from trainflat.core.errors import InputError
from trainflat.pruning import MagnitudePruner
from trainflat.pruning.gates import GATES
from trainflat.training import FlatTrainer


@pytest.mark.parametrize("accumulate", quick([2, 1, 4], 2))
@pytest.mark.parametrize("optimizer", [ADAMW, SAM], ids=["adamw", "sam"])
def test_the_trainer_takes_the_steps_of_autograd(tmp_path: Path, optimizer: dict[str, Any], accumulate: int) -> None:
    hand, losses = by_hand(optimizer["name"], clip=0.05)
    cut = {"per_device_train_batch_size": 8 // accumulate, "gradient_accumulation_steps": accumulate}
    trainer = trained(tmp_path, optimizer, HARD | {"refresh": 1}, max_grad_norm=0.05, **cut)
    assert max(e["grad_norm"] for e in trainer.state.log_history if "grad_norm" in e) > 0.05
    assert [e["loss"] for e in trainer.state.log_history if "loss" in e] == pytest.approx(losses, abs=1e-6)
    assert_same_weights(trainer.model, hand.model, atol=1e-8)
    assert trainer.masks is not None and trainer.masks.sparsity == pytest.approx(0.6, abs=1e-3)
    trainer.masks.check(trainer.model)
    assert not any("score" in name for name in trainer.model.state_dict())


# Of those that rank scores step by step, one of weights alone and one that measures; `make test-all` takes them all.
ONE_OF_A_KIND = quick(GATES, "magnitude", "gradient-norm", "pins", "hard-movement", "l0", "block-movement", "mlpruning")


@pytest.mark.parametrize("name", ONE_OF_A_KIND)
def test_a_resumed_run_ends_on_the_same_bits(tmp_path: Path, name: str) -> None:
    dropout, optimizer = tiny_bert(), ADAMW if name == "magnitude" else SAM
    settings: dict[str, Any] = {"eval_strategy": "steps", "eval_steps": 5, "save_strategy": "steps", "save_steps": 5}
    whole = trained(tmp_path / "a", optimizer, recipe(name), model=copy.deepcopy(dropout), **settings)

    class Stop(TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_training_stop = True

    half = FlatTrainer(
        copy.deepcopy(dropout),
        arguments(tmp_path / "b", **settings),
        train_dataset=random_split(),
        eval_dataset=random_split(16, seed=5),
        data_collator=collate,
        optimizer=optimizer,
        gate=recipe(name),
        callbacks=[Stop()],
    )
    half.train()
    assert half.state.global_step == 5
    rest = trained(
        tmp_path / "b",
        optimizer,
        recipe(name),
        model=copy.deepcopy(dropout),
        resume=str(tmp_path / "b/checkpoint-5"),
        **settings,
    )
    for p, q in zip(whole.model.parameters(), rest.model.parameters(), strict=True):
        assert torch.equal(p, q)
    assert whole.masks == rest.masks
    assert [e.get("sparsity") for e in whole.state.log_history] == [e.get("sparsity") for e in rest.state.log_history]


@pytest.mark.parametrize("name", ["magnitude", "hard-movement", "l0"])
def test_what_must_not_matter_does_not(tmp_path: Path, name: str) -> None:
    """How a batch is cut, and whether activations are computed twice."""
    plain = trained(tmp_path / "0", ADAMW, recipe(name))
    cut = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    assert_same_weights(trained(tmp_path / "1", ADAMW, recipe(name), **cut).model, plain.model, atol=1e-8)
    model = tiny_bert(**NO_DROPOUT).double()
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    assert_same_weights(trained(tmp_path / "2", ADAMW, recipe(name), model=model).model, plain.model, atol=1e-8)


def test_a_compiled_model_computes_with_gated_weights(tmp_path: Path) -> None:
    plain = trained(tmp_path / "0", ADAMW, HARD, max_steps=8)
    compiled = trained(tmp_path / "1", ADAMW, HARD, max_steps=8, torch_compile=True, torch_compile_backend="eager")
    assert_same_weights(compiled.model, plain.model, atol=1e-8)


@pytest.mark.parametrize("perturb", ["both", "none"])
def test_sam_over_micro_batches_of_one_is_sam_over_the_window(tmp_path: Path, perturb: str) -> None:
    gate = HARD | {"perturb": perturb}
    window = trained(tmp_path / "a", SAM, gate)
    micro = trained(tmp_path / "b", SAM, gate, perturb_over="micro-batch")
    assert_same_weights(micro.model, window.model, atol=1e-10)
    if perturb == "none":
        base = trained(tmp_path / "c", ADAMW, HARD)
        assert_same_weights(base.model, window.model, atol=1e-10)
    if perturb == "both":
        parts = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
        cut = trained(tmp_path / "d", SAM, gate, perturb_over="micro-batch", **parts)
        cut.masks.check(cut.model)  # type: ignore[union-attr]


def test_autocast_computes_with_gated_weights(tmp_path: Path) -> None:
    trainer = trained(tmp_path, ADAMW, HARD, model=tiny_bert(**NO_DROPOUT), bf16=True)
    other = trained(tmp_path / "fp32", ADAMW, HARD, model=tiny_bert(**NO_DROPOUT))
    one, two = ([e["loss"] for e in t.state.log_history if "loss" in e] for t in (trainer, other))
    assert one == pytest.approx(two, abs=0.01) and one != two
    trainer.masks.check(trainer.model)  # type: ignore[union-attr]


@pytest.mark.parametrize("optimizer", ["msam", "looksam", "esam", "entropy-sgd"])
def test_other_flat_optimizers_need_no_special_case(tmp_path: Path, optimizer: str) -> None:
    trainer = trained(tmp_path, {"name": optimizer, "lr": 1e-3}, HARD)
    trainer.masks.check(trainer.model)  # type: ignore[union-attr]
    assert trainer.masks.sparsity == pytest.approx(0.6, abs=1e-3)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["magnitude", "hard-movement"])
def test_an_average_of_weights_is_gated_too(tmp_path: Path, name: str) -> None:
    model = tiny_bert(**NO_DROPOUT).double()
    trainer = FlatTrainer(
        model,
        arguments(tmp_path, eval_strategy="epoch", save_strategy="epoch"),
        train_dataset=random_split(),
        eval_dataset=random_split(16),
        data_collator=collate,
        optimizer=ADAMW,
        averaging={"name": "swa", "start": 0.5, "every": 0.5},
        gate=recipe(name),
    )
    trainer.train()
    assert trainer.masks is not None and trainer.features["averaging"].models > 1
    trainer.masks.check(trainer.model)


@pytest.mark.parametrize("name", ONE_OF_A_KIND)
def test_evaluation_sees_the_gate_and_the_best_is_as_sparse_as_asked(tmp_path: Path, name: str) -> None:
    seen: list[tuple[int, float]] = []

    class Watch(FlatTrainer):
        def prediction_step(self, model: Any, *args: Any, **kwargs: Any) -> Any:
            weights = {n: self.model.get_parameter(n) for n in self.features["gate"].gate.masks()}
            zeros = sum(int((w == 0).sum()) for w in weights.values())
            seen.append((self.state.global_step, zeros / sum(w.numel() for w in weights.values())))
            return super().prediction_step(model, *args, **kwargs)

    trainer = Watch(
        tiny_bert(**NO_DROPOUT).double(),
        arguments(
            tmp_path,
            eval_strategy="steps",
            save_strategy="steps",
            eval_steps=2,
            save_steps=2,
            load_best_model_at_end=True,
            metric_for_best_model="eval_early",
            greater_is_better=True,
        ),
        train_dataset=random_split(),
        eval_dataset=random_split(8, seed=5),
        data_collator=collate,
        optimizer=ADAMW,
        gate=recipe(name),
        score=lambda split, predictions: {"early": -trainer.state.global_step},  # the best is the first that counts
    )
    trainer.train()
    logged = {e["step"]: e["sparsity"] for e in trainer.state.log_history if "eval_early" in e}
    assert dict(seen) == pytest.approx(logged, abs=2e-3)
    eligible = {e["step"]: e["eligible"] for e in trainer.state.log_history if "eligible" in e}
    assert eligible.keys() == logged.keys()
    assert trainer.state.best_global_step == min(step for step, could in eligible.items() if could)
    assert seen[0][1] < seen[-1][1]
    assert trainer.state.best_global_step in ((8, 10, 12) if name in ("l0", "mlpruning") else (8,))  # once it is there
    assert trainer.masks is not None
    trainer.masks.check(trainer.model)
    assert trainer.masks.sparsity == pytest.approx(logged[trainer.state.best_global_step], abs=2e-3)


def test_what_does_not_fit_together_is_refused(tmp_path: Path) -> None:
    model = tiny_bert()
    masks = MagnitudePruner(model, sparsity=0.5).prune()
    with pytest.raises(InputError, match="masks are fixed, and the gate 'magnitude' makes its own"):
        FlatTrainer(model, arguments(tmp_path), masks=masks, gate="magnitude")
    with pytest.raises(InputError, match="name a gate: magnitude"):
        FlatTrainer(tiny_bert(), arguments(tmp_path), gate={"sparsity": 0.5})
    with pytest.raises(InputError, match=r"perturb 'both' says what .* like SAM displaces, and AdamW is not one"):
        trained(tmp_path, ADAMW, HARD | {"perturb": "both"})
    with pytest.raises(
        InputError, match="the schedule holds 20 steps at its start and 0 at its end, and the run has 12"
    ):
        trained(tmp_path, ADAMW, {"name": "magnitude", "schedule": {"name": "linear", "start": 20}})
    for given in (3, ["magnitude"], GATES.make("magnitude", model)):
        with pytest.raises(InputError, match=r"gate is a name or a mapping such as \{'name': 'hard-movement'\}, got"):
            FlatTrainer(model, arguments(tmp_path), gate=given)  # type: ignore[arg-type]


def test_a_checkpoint_without_a_gate_is_not_resumed_with_one(tmp_path: Path) -> None:
    trained(tmp_path, ADAMW, None, save_strategy="steps", save_steps=12)
    with pytest.raises(InputError, match=r"was written without a gate and cannot go on with"):
        trained(tmp_path, ADAMW, HARD, resume=str(tmp_path / "checkpoint-12"), num_train_epochs=3)
