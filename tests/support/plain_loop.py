"""Training written by hand, without any Trainer: what FlatTrainer must agree with."""

import math
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import get_linear_schedule_with_warmup

from trainflat.averaging import AVERAGING
from trainflat.optim import OPTIMIZERS
from trainflat.optim.base import FlatOptimizer
from trainflat.pruning import Masks
from trainflat.quantization import Q8BERT
from trainflat.tasks.base import EncodedSplit
from trainflat.training.sampler import LengthGroupedSampler


def random_split(rows: int = 48, seed: int = 0, vocabulary: int = 120, kind: str = "classification") -> EncodedSplit:
    """Rows of 3 to 12 random tokens; the label is whether the first token is in the upper half of the vocabulary."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, 13, (rows,), generator=generator).tolist()
    encoded = []
    for length in lengths:
        ids = torch.randint(5, vocabulary, (length,), generator=generator).tolist()
        label: float | int = int(ids[0] > vocabulary // 2) if kind == "classification" else ids[0] / vocabulary
        encoded.append({"input_ids": ids, "attention_mask": [1] * length, "labels": label})
    return EncodedSplit("train", encoded, lengths)


def collate(rows: list[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Pads with 0 to the longest."""
    longest = max(len(row["input_ids"]) for row in rows)

    def padded(key: str) -> Tensor:
        return torch.tensor([[*row[key], *[0] * (longest - len(row[key]))] for row in rows])

    labels = torch.tensor([row["labels"] for row in rows])
    return {"input_ids": padded("input_ids"), "attention_mask": padded("attention_mask"), "labels": labels}


def train(
    model: nn.Module,
    split: EncodedSplit,
    recipe: Mapping[str, Any],
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    masks: Masks | None = None,
    clip: float = 1.0,
    averaging: Mapping[str, Any] | None = None,
    quantizer: Q8BERT | None = None,
) -> list[float]:
    """Whole batches, gradient clipping, linear decay; ends on the average, if any. Gives the loss of every step."""
    options = dict(recipe)
    named = [(n, p) for n, p in model.named_parameters()]
    decay = [(n, p) for n, p in named if p.dim() > 1 and "LayerNorm" not in n]
    rest = [(n, p) for n, p in named if not (p.dim() > 1 and "LayerNorm" not in n)]
    optimizer = OPTIMIZERS.make(
        options.pop("name"), [{"params": decay}, {"params": rest, "weight_decay": 0.0}], **options
    )
    sampler = LengthGroupedSampler(split.lengths, batch_size, seed)
    per_epoch = -(-len(split) // batch_size)
    steps = epochs * per_epoch
    average = None if averaging is None else AVERAGING.make(averaging["name"], model, **without_name(averaging))
    schedule = get_linear_schedule_with_warmup(optimizer, 0, steps)
    losses = []
    model.train()
    with masks.hold(model).attach(optimizer) if masks is not None else nullcontext():
        for epoch in range(epochs):
            order = sampler.order(epoch)
            for start in range(0, len(order), batch_size):
                batch = collate([split[i] for i in order[start : start + batch_size]])
                losses.append(_passes(model, batch, optimizer, steps, quantizer))
                if masks is not None:
                    masks.hold(model).mask_gradients()  # clipping must not see gradients of pruned weights
                nn.utils.clip_grad_norm_(model.parameters(), clip)
                optimizer.step()
                schedule.step()
                if quantizer is not None:
                    quantizer.update()
                if average is not None:
                    average.update(len(losses), steps, per_epoch)
    if average is not None:
        average.copy_to_model()
    return losses


def without_name(section: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in section.items() if key != "name"}


def _passes(
    model: nn.Module, batch: Mapping[str, Tensor], optimizer: Optimizer, steps: int, quantizer: Q8BERT | None
) -> float:
    losses, rows = [], []

    def one_pass(batch: Mapping[str, Tensor]) -> None:
        optimizer.zero_grad()
        outputs = model(**batch)
        outputs.loss.backward()
        losses.append(outputs.loss.item())
        rows.append(_row_losses(outputs, batch))

    flat = optimizer if isinstance(optimizer, FlatOptimizer) else None
    if flat is not None:
        flat.total_steps = steps
        batch = {**batch, "labels": flat.prepare_labels(batch["labels"], 2)}
    if flat is None or flat.first_pass:
        one_pass(batch)
    if flat is not None and flat.second_pass:
        again = quantizer is not None and flat.first_pass
        with flat.perturbed(), quantizer.unseen() if again else nullcontext():
            if flat.second_share < 1:
                with torch.no_grad():
                    rise = _row_losses(model(**batch), batch) - rows[0]
                chosen = rise.argsort(descending=True)[: math.ceil(flat.second_share * len(rise))]
                batch = {key: value[chosen] for key, value in batch.items()}
            one_pass(batch)
    if flat is not None:
        flat.finish_gradients()  # before they are clipped
    return losses[0]


def _row_losses(outputs: Any, batch: Mapping[str, Tensor]) -> Tensor:
    if hasattr(outputs, "row_losses"):
        return outputs.row_losses.detach()
    return -outputs.logits.detach().log_softmax(-1).gather(1, batch["labels"][:, None])[:, 0]
