"""GRAIN's gate in FlatTrainer beside a teacher: a loop by hand, separated gradients, checkpointed activations."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from tests.conftest import tiny_bert
from tests.support.gated_structure import TRAINED
from tests.support.grain_reference import NAMES, GrainByHand, importances
from tests.support.layered import FIXED, SHARE, ByHand, layered, wide_teacher
from tests.support.plain_loop import collate, random_split
from tests.support.training import ADAMW, NO_DROPOUT, SAM, assert_same_weights
from trainflat.core.errors import InputError
from trainflat.pruning.structured import shrink
from trainflat.training.sampler import LengthGroupedSampler

STEPS = 12
GRAIN = TRAINED["grain"] | {"decay": 0.8}


def by_hand(optimizer: str, accumulate: int, term: str) -> GrainByHand:
    """The loss's two parts are differentiated one after the other, with plain gradients of all weights."""
    model = tiny_bert(**NO_DROPOUT).double()
    whole, hand = ByHand(model, wide_teacher(), SHARE), GrainByHand(model, decay=0.8)
    decayed = [p for p in model.parameters() if p.dim() > 1]
    rest = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": [*rest, *whole.map.parameters()]}]
    adam = torch.optim.AdamW(groups, lr=1e-3, weight_decay=0.0)
    split, sampler = random_split(), LengthGroupedSampler(random_split().lengths, 8, 3)
    for step in range(STEPS):
        for group in adam.param_groups:
            group["lr"] = 1e-3 * (1 - step / STEPS)
        order = sampler.order(step // 6)[step % 6 * 8 :][:8]
        parts = [order[i : i + 8 // accumulate] for i in range(0, 8, 8 // accumulate)]

        def passes(parts: list[Any] = parts) -> dict[str, Any]:
            adam.zero_grad()
            named, of_term = dict(model.named_parameters()), {}
            for part in parts:
                rows = collate([split[i] for i in part])
                outputs = whole(**rows)
                task = (1 - SHARE) * F.cross_entropy(outputs.logits, rows["labels"])
                alone = {"task": task, "layerwise": outputs.loss - task}[term] / len(parts)
                grads = torch.autograd.grad(alone, [*named.values()], retain_graph=True, allow_unused=True)
                for name, grad in zip(named, grads, strict=True):
                    if grad is not None:
                        of_term[name] = of_term[name] + grad if name in of_term else grad
                (outputs.loss / len(parts)).backward()
            found = importances(model, of_term)
            hand.zero(gradients=True)
            return found

        found = passes()
        if optimizer == "sam":
            origin = [p.detach().clone() for p in model.parameters()]
            norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
            with torch.no_grad():
                for p in model.parameters():
                    p.add_(0.05 * p.grad / norm)
            found = passes()
            with torch.no_grad():
                for p, w in zip(model.parameters(), origin, strict=True):
                    p.copy_(w)
        if step < 7:
            hand.observe(found)
        torch.nn.utils.clip_grad_norm_(whole.parameters(), 0.3)
        adam.step()
        hand.drop(0.5 * (0 if step + 1 < 3 else 1 - (1 - min((step + 1 - 3) / 4, 1)) ** 3))
        hand.zero()
    return hand


@pytest.mark.parametrize(
    ("optimizer", "accumulate", "term"),
    [(ADAMW, 1, "task"), (SAM, 2, "task"), (ADAMW, 2, "layerwise")],
    ids=["adamw", "sam, cut", "the other term, cut"],
)
def test_the_trainer_ranks_by_one_term_and_steps_by_both(
    tmp_path: Path, optimizer: Any, accumulate: int, term: str
) -> None:
    hand = by_hand(optimizer["name"], accumulate, term)
    cut = {"per_device_train_batch_size": 8 // accumulate, "gradient_accumulation_steps": accumulate}
    parts = {"gate": GRAIN | {"term": term}}
    trainer = layered(tmp_path, optimizer, FIXED, parts=parts, max_grad_norm=0.3, warmup_steps=0, **cut)
    trainer.train()
    gate: Any = trainer.features["gate"].gate
    assert_same_weights(trainer.model, hand.model, atol=1e-8)
    for (kind, layer, i), score in hand.scores.items():
        key = f"{NAMES[kind]} {layer}"
        assert gate.scores[key][i].item() == pytest.approx(score, rel=1e-5, abs=1e-12)
        assert bool(gate.left[key][i]) == ((kind, layer, i) not in hand.gone)
    assert hand.gone and max(e["grad_norm"] for e in trainer.state.log_history if "grad_norm" in e) > 0.3
    assert {p.numel() for p in gate.scores.values()} and trainer.masks is not None
    rows = collate([random_split(8, seed=5)[i] for i in range(8)])
    with torch.no_grad():
        small = shrink(trainer.model, trainer.features["gate"].product).eval()
        torch.testing.assert_close(small(**rows).logits, trainer.model.eval()(**rows).logits, rtol=0, atol=1e-12)


def test_optimizers_move_no_score_and_evaluations_of_averages_see_zeros(tmp_path: Path) -> None:
    parts = {"gate": GRAIN, "averaging": {"name": "swa", "start": 0.2, "every": 1}}
    trainer = layered(tmp_path, ADAMW | {"weight_decay": 0.5}, FIXED, parts=parts)
    trainer.train()
    gate: Any = trainer.features["gate"].gate
    assert all((score >= 0).all() and score.any() for score in gate.scores.values())
    assert not [p for p in gate.scores.values() if trainer.optimizer.optimizer.state.get(p)]
    trainer.masks.check(trainer.model)
    for layer in trainer.model.bert.encoder.layer:  # biases of units that are gone, too
        assert ((layer.intermediate.dense.weight == 0).all(1) <= (layer.intermediate.dense.bias == 0)).all()


def test_one_term_is_not_taken_through_reentrant_checkpointing(tmp_path: Path) -> None:
    def saving(reentrant: bool, term: str | None) -> Any:
        again = {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": reentrant}}
        trainer = layered(tmp_path, SAM, FIXED, parts={"gate": GRAIN | {"term": term}}, **again)
        trainer.train()
        return trainer.model

    plain = {}
    for term in ("task", None):
        trainer = layered(tmp_path, SAM, FIXED, parts={"gate": GRAIN | {"term": term}})
        trainer.train()
        plain[term] = trainer.model
    assert_same_weights(saving(False, "task"), plain["task"], atol=1e-9)
    assert_same_weights(saving(True, None), plain[None], atol=1e-9)
    with pytest.raises(InputError, match=r"reaches no unit of the model's layers\. Where activations are checkpointed"):
        saving(True, "task")


def test_an_unknown_term_is_refused_at_the_first_pass(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="term 'logits', and the loss has task, layerwise"):
        layered(tmp_path, ADAMW, FIXED, parts={"gate": GRAIN | {"term": "logits"}}).train()
