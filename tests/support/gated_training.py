"""Gates in the Trainer, and hard movement trained by hand with autograd."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.conftest import tiny_bert
from tests.support.gated_reference import ByHand
from tests.support.plain_loop import collate, random_split
from tests.support.training import NO_DROPOUT, arguments
from trainflat.pruning.gates import GATES
from trainflat.training import FlatTrainer
from trainflat.training.sampler import LengthGroupedSampler

RAMP = {"name": "cubic", "start": 2, "hold": 4}


RECIPES: dict[str, dict[str, Any]] = {
    **{key: {"sparsity": 0.6, "every": 2, "schedule": RAMP} for key in ("magnitude", "random", "loss-preservation")},
    **{key: {"sparsity": 0.6, "every": 2, "schedule": RAMP, "rows": 8} for key in ("grasp", "gradient-norm")},
    "pins": {"sparsity": 0.6, "every": 2, "window": 3, "schedule": RAMP},
    "hard-movement": {"sparsity": 0.6, "refresh": 3, "schedule": RAMP},
    "soft-movement": {"penalty": 4.0, "score_lr": 0.5, "schedule": RAMP},
    "l0": {"target_sparsity": 0.6, "score_lr": 0.5, "schedule": RAMP},
    "block-movement": {"penalty": 4.0, "score_lr": 0.5, "block": 4, "schedule": RAMP},
    "mlpruning": {"target_sparsity": 0.6, "first_ratio": 2.0, "score_lr": 2.0, "schedule": RAMP},
}


HARD = {"name": "hard-movement", **RECIPES["hard-movement"]}


def recipe(name: str) -> dict[str, Any]:
    return {"name": name, **RECIPES.get(name, {"schedule": RAMP})}


def trained(
    folder: Path,
    optimizer: Any,
    gate: Any,
    *,
    model: Any = None,
    resume: Any = None,
    callbacks: Any = None,
    **options: Any,
) -> FlatTrainer:
    trainer = FlatTrainer(
        tiny_bert(**NO_DROPOUT).double() if model is None else model,
        arguments(folder, **options),
        train_dataset=random_split(),
        eval_dataset=random_split(16, seed=5),
        data_collator=collate,
        optimizer=optimizer,
        gate=gate,
        callbacks=callbacks,
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def by_hand(
    optimizer: str, clip: float = 1.0, rho: float = 0.05, *, model: Any = None, quantizer: Any = None
) -> tuple[ByHand, list[float]]:
    """Hard movement by autograd, refreshed at every step, scores and weights clipped together; SAM moves weights."""
    model = tiny_bert(**NO_DROPOUT).double() if model is None else model
    twin = tiny_bert(**NO_DROPOUT).double()
    gate = GATES.make("hard-movement", twin, sparsity=0.6, schedule=RAMP, refresh=1)
    gate.begin(12)
    hand, split = ByHand(model, gate), random_split()
    decayed = [p for p in model.parameters() if p.dim() > 1]
    rest = [p for p in model.parameters() if p.dim() == 1]
    scores = [*hand.scores.values()]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    adam = torch.optim.AdamW([*groups, {"params": scores, "lr": 1e-2, "weight_decay": 0.0}], lr=1e-3)
    linear = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: 1 - step / 12)
    sampler, losses = LengthGroupedSampler(split.lengths, 8, 3), []
    for step in range(12):
        order = sampler.order(step // 6)[step % 6 * 8 :][:8]
        batch = collate([split[i] for i in order])
        adam.zero_grad()
        loss = hand.loss(batch)
        loss.backward()
        losses.append(loss.item())
        if optimizer == "sam":
            origin = [p.detach().clone() for p in model.parameters()]
            norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
            with torch.no_grad():
                for p in model.parameters():
                    p.add_(rho * p.grad / norm)
            adam.zero_grad()
            with nullcontext() if quantizer is None else quantizer.unseen():
                hand.loss(batch).backward()
            with torch.no_grad():
                for p, w in zip(model.parameters(), origin, strict=True):
                    p.copy_(w)
        nn.utils.clip_grad_norm_(hand.parameters(), clip)
        adam.step()
        linear.step()
        if quantizer is not None:
            quantizer.update()
        for name, score in hand.scores.items():
            gate.scores[name].data.copy_(score)
        gate.advance(step + 1)
    gate.masks().apply_(model)
    return hand, losses
