"""Gates of a structure beside whatever else a training does; and what CoFi's published scores hang on.

By their weight, as ``methods-structured.md`` A1.14 lists what decides (1, the last fine-tuning, and 9, its length, show
on real text alone), a test each:

2. when the best counts: ``test_structural: test_the_best_must_be_small_enough_as_it_would_be_shrunk``, and in the
   Trainer ``test_evaluations_see_what_is_shrunk_and_the_best_is_small_enough``
3. the phase without gates in epochs: ``test_structural: test_the_dense_phase_is_a_share_of_the_epochs``
4. no labels, T and T²: ``test_the_loss_of_a_gated_step_is_the_teachers`` below; that labels teach nothing at all:
   ``test_structural_training: test_labels_teach_nothing_and_embeddings_rest_beside_a_teacher``
5. the optimizer made anew: ``test_structural_training: test_rates_restart_with_the_gates_and_those_of_gates_stay``, and
   its memory ``test_the_trainer_takes_the_steps_of_three_optimizers``
6. layers matched by their numbers: ``test_layers_are_alive_by_their_number`` below, and ``test_layerwise``
7. embeddings that rest: as 4, the second
8. bounds: ``test_structural: test_scores_begin_as_published_and_are_bounded_after_every_step``
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from tests.conftest import tiny_bert
from tests.support.gated_structure import START, TRAINED, reference, values_by_hand
from tests.support.gated_training import trained
from tests.support.layered import wide_teacher
from tests.support.marks import quick
from tests.support.plain_loop import collate, random_split
from tests.support.training import ADAMW, NO_DROPOUT, SAM, arguments, assert_same_weights
from trainflat.core.errors import InputError
from trainflat.distillation.matching import ordered
from trainflat.pruning.gates import STRUCTURE_GATES, HardConcrete, StructuralGate
from trainflat.pruning.structured import shrink
from trainflat.training import FlatTrainer
from trainflat.training.sampler import LengthGroupedSampler

METHODS = pytest.mark.parametrize("name", STRUCTURE_GATES)
FELLOWS: dict[str, dict[str, Any]] = {
    **{name: {"optimizer": {"name": name, "lr": 1e-3}} for name in ("msam", "looksam", "esam", "entropy-sgd", "cram")},
    **{name: {"averaging": {"name": name}} for name in ("swa", "ema")},
    "layers": {"distillation": {"teacher": wide_teacher(), "weight": 0.5}, "layerwise": {"weight": 0.5}},
    "embeddings": {"freeze_embeddings": True},
}
COFI = TRAINED["cofi"]
STILL = {"name": "adamw", "lr": 1e-30, "weight_decay": 0.0}


def trainer_of(folder: Path, gate: Any, optimizer: Any = ADAMW, parts: Any = None, **options: Any) -> FlatTrainer:
    return FlatTrainer(
        tiny_bert(**NO_DROPOUT).double(),
        arguments(folder, **options),
        train_dataset=random_split(),
        data_collator=collate,
        optimizer=optimizer,
        gate=gate,
        **(parts or {}),
    )


@METHODS
@pytest.mark.parametrize("fellow", quick(FELLOWS, "esam", "swa", "layers"))
def test_whatever_else_joins_what_is_finished_is_what_is_shrunk(tmp_path: Path, name: str, fellow: str) -> None:
    trainer = trainer_of(tmp_path, TRAINED[name], **({"optimizer": ADAMW} | split_of(FELLOWS[fellow])))
    trainer.train()
    rows = collate([random_split(8, seed=5)[i] for i in range(8)])
    small = shrink(trainer.model.eval(), trainer.features["gate"].product)
    with torch.no_grad(), trainer.features.as_finished():
        torch.testing.assert_close(trainer.model(**rows).logits, small(**rows).logits, rtol=0, atol=1e-12)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in trainer.model.parameters())


def split_of(fellow: dict[str, Any]) -> dict[str, Any]:
    return fellow if "optimizer" in fellow else {"parts": fellow}


@pytest.mark.parametrize("name", [one for one in STRUCTURE_GATES if issubclass(STRUCTURE_GATES[one], StructuralGate)])
def test_what_a_gate_on_activations_cannot_stand_beside_is_refused(tmp_path: Path, name: str) -> None:
    renewed = {"distillation": {"teacher": wide_teacher(), "renew": "best"}}
    for parts, message in (
        ({"quantization": "q8bert"}, "is no plain linear layer. Shrink a model before it is quantized"),
        ({"reparametrization": "powerprop"}, "which reparametrization makes θ"),
        (renewed, f"renew best makes a teacher of the student's weights, and the gate '{name}' is not in them"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            trainer_of(tmp_path, TRAINED[name], parts=parts).train()
        assert "\n" not in str(caught.value)


# Displacements, cuts of a batch, precision


@pytest.mark.parametrize("perturb", quick(["weights", "scores", "both", "none"], "scores", "none"))
def test_a_window_of_one_micro_batch_is_that_micro_batch(tmp_path: Path, perturb: str) -> None:
    """Also before values are drawn, when scores have nothing to be displaced by."""
    gate = COFI | {"perturb": perturb}
    window, micro, base = (
        trained(tmp_path / str(number), optimizer, section, **options)
        for number, (optimizer, section, options) in enumerate(
            [(SAM, gate, {}), (SAM, gate, {"perturb_over": "micro-batch"}), (ADAMW, COFI, {})]
        )
    )
    assert_same_weights(micro.model, window.model, atol=1e-10)
    logs = [entry["perturbation"] for entry in window.state.log_history if "perturbation" in entry]
    moved = {"weights": (True, True), "scores": (False, True), "both": (True, True), "none": (False, False)}[perturb]
    assert (all(logs[:START]), all(logs[START:])) == moved and (any(logs[:START]), any(logs[START:])) == moved
    if perturb == "none":
        assert_same_weights(base.model, window.model, atol=1e-10)


def test_micro_batches_differ_by_their_draws_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all draws are alike, how a batch is cut changes neither weights nor scores nor multipliers."""
    cuts = [{}, {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}]
    whole, cut = (trained(tmp_path / f"drawn-{len(c)}", SAM, COFI, **c).features["gate"].gate.scores for c in cuts)
    assert (whole["head 0"] - cut["head 0"]).abs().max() > 1e-3
    monkeypatch.setattr(HardConcrete, "noise", lambda self, name, score, at: torch.full_like(score, 0.4))
    whole, cut = (trained(tmp_path / f"alike-{len(c)}", SAM, COFI, **c) for c in cuts)
    assert_same_weights(cut.model, whole.model, atol=1e-8)
    state = cut.features["gate"].gate.state_dict()
    for name, tensor in whole.features["gate"].gate.state_dict().items():
        torch.testing.assert_close(state[name], tensor, rtol=0, atol=1e-7)


@METHODS
def test_autocast_computes_with_gates_and_learns_in_float32(tmp_path: Path, name: str) -> None:
    half, whole = (
        trained(tmp_path / f"{bf16}", SAM, TRAINED[name], model=tiny_bert(**NO_DROPOUT), bf16=bf16)
        for bf16 in (True, False)
    )
    one, two = ([e["loss"] for e in t.state.log_history if "loss" in e] for t in (half, whole))
    assert one == pytest.approx(two, abs=0.02) and one != two
    learned = [*half.model.parameters(), *half.features["gate"].gate.scores.values()]
    assert {p.dtype for p in learned} == {torch.float32}
    remembered = [t for state in half.optimizer.state_dict()["state"].values() for t in state.values()]
    assert not any(torch.is_tensor(t) and t.dtype == torch.bfloat16 for t in remembered)


# What the published scores hang on


def test_the_loss_of_a_gated_step_is_the_teachers(tmp_path: Path) -> None:
    """T² KL over the batch, and the squares of both layers over its tokens, of the student with its draw; no labels."""
    layers, teacher = 0.9, wide_teacher()  # with dropout, which a teacher must not use
    parts = {
        "distillation": {"teacher": teacher, "weight": 1.0, "temperature": 2.0},
        "layerwise": {"weight": layers, "map": "shared"},
    }
    gate = COFI | {"init": "mild"}
    trainer = trainer_of(tmp_path, gate, STILL, parts, max_steps=START + 9)
    student = tiny_bert(**NO_DROPOUT).double()
    trainer.train()
    found = [e["loss"] for e in trainer.state.log_history if "loss" in e]

    split = random_split()
    order = LengthGroupedSampler(split.lengths, 8, 3).order(0)
    twin: Any = STRUCTURE_GATES.make("cofi", student, **{key: gate[key] for key in gate if key != "name"})
    twin.begin(START + 9, seed=3)
    twin.advance(1)  # the first step bounds the scores, which rest until values are drawn
    for step in (0, START):
        twin.advance(step or 1)
        scores = {name: score.detach() for name, score in twin.scores.items()}
        gated = reference(student, values_by_hand(twin, scores, 0)) if step else student
        batch = collate([split[i] for i in order[8 * step : 8 * step + 8]])
        assert found[step] == pytest.approx(by_hand(gated, teacher, batch, layers), abs=1e-5)  # logs are rounded


@torch.no_grad()
def by_hand(student: Any, teacher: Any, batch: dict[str, Tensor], layers: float) -> float:
    batch = {key: value for key, value in batch.items() if key != "labels"}
    ours, theirs = (one.eval()(**batch, output_hidden_states=True) for one in (student, teacher))
    p, q = (F.softmax(one.logits / 2, -1) for one in (theirs, ours))
    logits = 4 * (p * (p.log() - q.log())).sum(-1).mean()
    total, mask = torch.zeros(()).double(), batch["attention_mask"].double()
    for number in (1, 2):
        wide = F.pad(ours.hidden_states[number], (0, 24 - 16))  # the map begins as the identity
        squares = (wide - theirs.hidden_states[number]).square().mean(-1)
        total = total + ((squares * mask).sum(1) / mask.sum(1)).mean()
    return float((1 - layers) * logits + layers * total)


def test_layers_are_alive_by_their_number() -> None:
    """CoFi's code looks up whether a layer lives by its place in the order of losses: it would take layers 1 and 2."""
    table = [[2.0, 1.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]]
    alive = [True, True, False, False]
    by_loss = sorted(range(4), key=table[1].__getitem__)
    published = [layer for place, layer in enumerate(by_loss) if alive[place]]
    assert published == [3, 2]  # both are gone
    assert ordered(table, alive) == {1: 2, 0: 1}
