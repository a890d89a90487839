"""Gates of a structure in FlatTrainer, resuming, two processes; CoFi: a loop by hand, the dense phase, restarts."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from tests.conftest import tiny_bert
from tests.support.gated_structure import START, TRAINED
from tests.support.gated_training import trained
from tests.support.marks import quick
from tests.support.plain_loop import collate, random_split
from tests.support.teachers import teacher_model
from tests.support.training import ADAMW, NO_DROPOUT, SAM, arguments, assert_same_weights, reproducible
from tests.support.two_processes import pair
from trainflat.anatomy import anatomy_of
from trainflat.core.errors import InputError
from trainflat.pruning.gates import STRUCTURE_GATES
from trainflat.pruning.structured import count, shrink
from trainflat.training import FlatTrainer
from trainflat.training.sampler import LengthGroupedSampler

STEPS, DENSE = 12, START
COFI = TRAINED["cofi"]
METHODS = pytest.mark.parametrize("name", STRUCTURE_GATES)


def gate_of(trainer: FlatTrainer) -> Any:
    return trainer.features["gate"].gate


def by_hand(optimizer: str, accumulate: int, clip: float) -> tuple[Any, Any]:
    """Three optimizers, as in CoFi's code, of which that of the weights is made anew where gates begin."""
    model = tiny_bert(**NO_DROPOUT).double()
    options = {key: value for key, value in COFI.items() if key != "name"}
    gate: Any = STRUCTURE_GATES.make("cofi", model, **options)
    gate.begin(STEPS, seed=3)
    split, sampler = random_split(), LengthGroupedSampler(random_split().lengths, 8, 3)
    scores = torch.optim.AdamW([*gate.scores.values()], lr=2.0, weight_decay=0)
    multipliers = torch.optim.AdamW([gate.pressure.multipliers], lr=0.5, weight_decay=0, maximize=True)
    for step in range(STEPS):
        if step in (0, DENSE):
            decayed = [p for p in model.parameters() if p.dim() > 1]
            rest = [p for p in model.parameters() if p.dim() == 1]
            adam = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}])
            first, length = step, STEPS - step
        for group in adam.param_groups:
            group["lr"] = 1e-3 * (1 - (step - first) / length)
        order = sampler.order(step // 6)[step % 6 * 8 :][:8]
        parts = [order[i : i + 8 // accumulate] for i in range(0, 8, 8 // accumulate)]

        def passes(parts: list[Any] = parts) -> None:
            for p in (*model.parameters(), *gate.scores.values(), gate.pressure.multipliers):
                p.grad = None
            with gate.passes():
                for part in parts:
                    (model(**collate([split[i] for i in part])).loss / len(parts)).backward()

        passes()
        if optimizer == "sam":
            origin = [p.detach().clone() for p in model.parameters()]
            norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
            with torch.no_grad():
                for p in model.parameters():
                    p.add_(0.05 * p.grad / norm)
            passes()
            with torch.no_grad():
                for p, w in zip(model.parameters(), origin, strict=True):
                    p.copy_(w)
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        for one in (adam, scores, multipliers):
            one.step()
        gate.advance(step + 1)
    return model, gate


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("optimizer", [ADAMW, SAM], ids=["adamw", "sam"])
def test_the_trainer_takes_the_steps_of_three_optimizers(tmp_path: Path, optimizer: Any, accumulate: int) -> None:
    model, hand = by_hand(optimizer["name"], accumulate, clip=0.05)
    cut = {"per_device_train_batch_size": 8 // accumulate, "gradient_accumulation_steps": accumulate}
    trainer = trained(tmp_path, optimizer, COFI, max_grad_norm=0.05, warmup_steps=0, **cut)
    assert_same_weights(trainer.model, model, atol=1e-8)
    gate = gate_of(trainer)
    for name, score in hand.scores.items():
        torch.testing.assert_close(gate.scores[name], score, rtol=0, atol=1e-7)
    torch.testing.assert_close(gate.pressure.multipliers, hand.pressure.multipliers, rtol=0, atol=1e-7)
    assert max(e["grad_norm"] for e in trainer.state.log_history if "grad_norm" in e) > 0.05
    assert trainer.masks is None and not any("score" in name for name in trainer.model.state_dict())


def test_rates_restart_with_the_gates_and_those_of_gates_stay(tmp_path: Path) -> None:
    rates: list[list[float]] = []

    class Watch(TrainerCallback):
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            rates.append([group["lr"] for group in kwargs["optimizer"].param_groups])

    trained(tmp_path / "a", ADAMW, COFI, callbacks=[Watch()], warmup_steps=0.25)
    weights, *_, scores, multipliers = zip(*rates, strict=True)
    dense, gated = [0, 1, 2], [0, 1, 2, *(3 - 3 * k / 6 for k in range(1, 6))]
    # A quarter of each course is warm-up: 3 of 12 steps, then ceil(9 / 4) = 3 of 9.
    wanted = [1e-3 * k / 3 for k in dense] + [1e-3 * k / 3 for k in (0, 1, 2, 3, 2.5, 2, 1.5, 1, 0.5)]
    assert weights == pytest.approx(wanted) and len(gated) == 8
    assert set(scores) == {2.0} and set(multipliers) == {0.5}
    rates.clear()
    trained(tmp_path / "b", ADAMW, COFI | {"restart": False}, callbacks=[Watch()])
    assert [one[0] for one in rates] == pytest.approx([1e-3 * (1 - k / 12) for k in range(12)])


@METHODS
@pytest.mark.parametrize("stop", quick([2, DENSE, 5], DENSE))
def test_a_resumed_run_ends_on_the_same_bits(tmp_path: Path, name: str, stop: int) -> None:
    """Before, at and after the step where units begin to go, and CoFi's optimizer is made anew; with dropout."""
    dropout = tiny_bert()
    settings: dict[str, Any] = {
        "eval_strategy": "steps",
        "eval_steps": stop,
        "save_strategy": "steps",
        "save_steps": stop,
    }

    class Stop(TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_training_stop = state.global_step == stop

    whole = trained(tmp_path / "a", SAM, TRAINED[name], model=copy.deepcopy(dropout), **settings)
    trained(tmp_path / "b", SAM, TRAINED[name], model=copy.deepcopy(dropout), callbacks=[Stop()], **settings)
    checkpoint = str(tmp_path / f"b/checkpoint-{stop}")
    rest = trained(tmp_path / "b", SAM, TRAINED[name], model=copy.deepcopy(dropout), resume=checkpoint, **settings)
    assert_same_weights(whole.model, rest.model, atol=0)
    one, other = gate_of(whole).state_dict(), gate_of(rest).state_dict()
    assert one.keys() == other.keys() and all(torch.equal(tensor, other[key]) for key, tensor in one.items())
    assert reproducible(whole) == reproducible(rest)


@METHODS
def test_evaluations_see_what_is_shrunk_and_the_best_is_small_enough(tmp_path: Path, name: str) -> None:
    seen: dict[int, Any] = {}

    class Watch(FlatTrainer):
        def prediction_step(self, model: Any, *args: Any, **kwargs: Any) -> Any:
            found = super().prediction_step(model, *args, **kwargs)
            gate = gate_of(self)
            left = count(gate.kept(), anatomy_of(self.model)).sparsity
            seen.setdefault(self.state.global_step, (left, gate.settled, found[1]))
            return found

    best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_early", "greater_is_better": True}
    trainer = Watch(
        tiny_bert(**NO_DROPOUT).double(),
        arguments(tmp_path, eval_strategy="steps", save_strategy="steps", eval_steps=1, save_steps=1, **best),
        train_dataset=random_split(),
        eval_dataset=random_split(8, seed=5),
        data_collator=collate,
        optimizer=ADAMW,
        gate=TRAINED[name] | ({"tolerance": 0.4} if name == "cofi" else {}),
        score=lambda split, predictions: {"early": -trainer.state.global_step},  # the best is the first that counts
    )
    trainer.train()
    settled = [step for step, (left, is_settled, _) in seen.items() if is_settled]
    assert trainer.state.best_global_step == min(settled) >= 7
    assert [e["step"] for e in trainer.state.log_history if e.get("eligible")] == settled
    assert all(seen[step][0] >= 0.1 for step in settled) and [seen[step][0] for step in (1, 2)] == [0, 0]
    logged = {e["step"]: e["sparsity"] for e in trainer.state.log_history if "eval_early" in e}
    assert logged == pytest.approx({step: left for step, (left, *_) in seen.items()})
    driven = {"sparsity_target", "sparsity_expected", "multiplier_1", "multiplier_2"}
    assert {"cofi": driven, "grain": {"sparsity_units"}}[name] <= trainer.state.log_history[-2].keys()
    kept = trainer.features["gate"].product
    small = shrink(trainer.model, kept).eval()
    rows = collate([random_split(8, seed=5)[i] for i in range(8)])
    with torch.no_grad():
        torch.testing.assert_close(small(**rows).logits, seen[min(settled)][2], rtol=0, atol=1e-10)
        with trainer.features.as_finished():  # also when training is complete
            torch.testing.assert_close(trainer.model(**rows).logits, small(**rows).logits, rtol=0, atol=1e-10)


def test_labels_teach_nothing_and_embeddings_rest_beside_a_teacher(tmp_path: Path) -> None:
    """As published: the teacher alone is learned from, and embeddings stay what they were, their LayerNorm too."""
    found = []
    for place, turned in enumerate((False, True)):
        split = random_split()
        for row in split.rows if turned else ():
            row["labels"] = 1 - row["labels"]
        model = tiny_bert(**NO_DROPOUT).double()
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        trainer = FlatTrainer(
            model,
            arguments(tmp_path / str(place)),
            train_dataset=split,
            data_collator=collate,
            optimizer=ADAMW,
            gate=COFI,
            distillation={"teacher": teacher_model().double(), "weight": 1.0, "temperature": 2.0},
            freeze_embeddings=True,
        )
        trainer.train()
        still = {name for name, p in model.named_parameters() if torch.equal(p, before[name])}
        assert {name for name in before if "embeddings." in name} == still
        found.append(model)
    assert_same_weights(*found, atol=0)


@METHODS
@pytest.mark.slow
def test_checkpointed_activations_and_autocast_see_the_gates(tmp_path: Path, name: str) -> None:
    plain = trained(tmp_path / "0", ADAMW, TRAINED[name])
    model = tiny_bert(**NO_DROPOUT).double()
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    assert_same_weights(trained(tmp_path / "1", ADAMW, TRAINED[name], model=model).model, plain.model, atol=1e-8)
    half, whole = (
        trained(tmp_path / f"{bf16}", ADAMW, TRAINED[name], model=tiny_bert(**NO_DROPOUT), bf16=bf16)
        for bf16 in (True, False)
    )
    one, two = ([e["loss"] for e in t.state.log_history if "loss" in e] for t in (half, whole))
    assert one == pytest.approx(two, abs=0.02) and one != two


@pytest.mark.long
def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    cut = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    cases = {f"{name}-{kind['name']}": (kind, gate) for name, gate in TRAINED.items() for kind in (ADAMW, SAM)}
    given = {name: (*case, cut) for name, case in cases.items()}
    pair().run("tests.support.ddp_gates", {"out": str(tmp_path), "cases": given})
    alone = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    for name, case in cases.items():
        one = dict(trained(tmp_path / f"one-{name}", *case, **alone).model.named_parameters())
        first, second = (load_file(tmp_path / f"{name}-{rank}.safetensors") for rank in (0, 1))
        for key, weights in first.items():
            assert torch.equal(weights, second[key]), (name, key)
            torch.testing.assert_close(weights, one[key].detach(), rtol=0, atol=1e-8, msg=f"{name} {key}")


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    for name in STRUCTURE_GATES:
        with pytest.raises(InputError, match="go unheard in a compiled model"):
            trained(tmp_path, ADAMW, TRAINED[name], torch_compile=True)
    for options, text in (
        ({"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "epoch"}, "is no function of the step"),
    ):
        with pytest.raises(InputError, match=text):
            trained(tmp_path, ADAMW, COFI, **options)
    with pytest.raises(InputError, match="no gate is called 'cofy'"):
        trained(tmp_path, ADAMW, "cofy")
    with pytest.raises(InputError, match=r"perturb 'both' says what an optimizer like SAM displaces, and AdamW is not"):
        trained(tmp_path, ADAMW, COFI | {"perturb": "both"})
