"""MLPruning by hand on a BERT: loops over names, no slices of an anatomy."""

import math
import re
from typing import Any

import torch
from torch import Tensor

from trainflat.pruning.gates import MLPruning


def top(score: Tensor, theta: Tensor) -> Tensor:
    """The ``ceil(sigmoid(theta) n)`` highest, by a sort; of equal ones the last."""
    flat = score.detach().flatten().tolist()
    order = sorted(range(len(flat)), key=lambda i: (flat[i], i))
    kept = set(order[-math.ceil(1 / (1 + math.exp(-float(theta.detach()))) * len(flat)) :])
    return torch.tensor([float(i in kept) for i in range(len(flat))], dtype=score.dtype).view(score.shape)


def gated(gate: MLPruning, weights: dict[str, Tensor], learned: dict[str, Any]) -> tuple[dict[str, Tensor], Tensor]:
    """What the model computes with, as autograd sees it, and the penalty."""
    scores = {key: s for key, s in learned.items() if not key.startswith("ratio ")}
    ratio = {key: learned[f"ratio {key}"].sigmoid() for key in scores}
    masks = {key: top(s, learned[f"ratio {key}"]) for key, s in scores.items()}
    through = {}
    for key, s in scores.items():
        theta = learned[f"ratio {key}"]
        through[key] = masks[key] + s - s.detach() + masks[key] * (theta - theta.detach())
    found = dict(weights)
    if gate.level == "block":
        for name in scores:
            rows, columns = (torch.arange(length) // gate.block for length in weights[name].shape)
            found[name] = weights[name] * through[name][rows[:, None], columns]
        sizes = [ratio[name].clamp_min(1 / scores[name].numel()) * weights[name].numel() for name in scores]
        size = torch.stack(sizes).sum() / sum(weights[name].numel() for name in scores)
        return found, _penalty(gate, size)
    total = torch.zeros((), dtype=torch.float64)
    layers = sorted({int(n) for n in re.findall(r"layer\.(\d+)\.", " ".join(weights))})
    for layer in layers:
        path, least = f"bert.encoder.layer.{layer}", {k: r.clamp_min(1 / scores[k].numel()) for k, r in ratio.items()}
        head, unit = f"head {layer}", f"feed-forward unit {layer}"
        width = len(weights[f"{path}.attention.self.query.weight"]) // len(scores[head])
        dims = through[head].repeat_interleave(width)
        for name in ("query", "key", "value"):
            for part in ("weight", "bias"):
                full = f"{path}.attention.self.{name}.{part}"
                found[full] = weights[full] * (dims[:, None] if part == "weight" else dims)
        for part in ("weight", "bias"):
            full = f"{path}.intermediate.dense.{part}"
            found[full] = weights[full] * (through[unit][:, None] if part == "weight" else through[unit])
        behind = {"attention": masks[head].repeat_interleave(width), "feed-forward": masks[unit]}
        for kind, module in (("attention", "attention.output.dense"), ("feed-forward", "output.dense")):
            rows = through[f"{kind} output {layer}"]
            found[f"{path}.{module}.weight"] = weights[f"{path}.{module}.weight"] * rows[:, None] * behind[kind]
            found[f"{path}.{module}.bias"] = weights[f"{path}.{module}.bias"] * rows
        wide = len(scores[unit]) / len(scores[f"feed-forward output {layer}"])  # published: 4
        total = total + 3 * least[head] + least[head] * least[f"attention output {layer}"]
        total = total + wide * least[unit] * (1 + least[f"feed-forward output {layer}"])
    return found, _penalty(gate, total / (len(layers) * (4 + 2 * wide)))


def _penalty(gate: MLPruning, size: Tensor) -> Tensor:
    left = 1 - gate.target_sparsity * gate.schedule.share(gate.step, gate.total_steps)
    if size <= left:
        return 0 * size
    square = (size - left) ** 2
    strength = max(gate.penalty * square.item() / gate.target_sparsity**2, 50)
    return square * (10 if square.item() < 3e-4 else strength)
