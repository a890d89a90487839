"""Block movement by hand on a BERT: loops over names and indices, no slices of an anatomy."""

import re
from typing import Any

import torch
from torch import Tensor

from trainflat.pruning.gates import BlockMovement

ATTENTION = re.compile(r"layer\.(\d+)\.attention\.(self\.(?:query|key|value)|output\.dense)\.weight$")
FEED_FORWARD = re.compile(r"layer\.(\d+)\.(intermediate|output)\.dense\.weight$")


def open_scores(score: Tensor, tau: float) -> Tensor:
    """``sigmoid(S) > tau``; or the highest ``int(0.005 n) + 1``, one after the other, where fewer are above."""
    flat = score.detach().flatten().tolist()
    above = {i for i, s in enumerate(flat) if torch.tensor(s, dtype=torch.float64).sigmoid() > tau}
    least = int(0.005 * len(flat)) + 1
    if len(above) < least:
        above = set(sorted(range(len(flat)), key=lambda i: (flat[i], i))[-least:])
    return torch.tensor([float(i in above) for i in range(len(flat))], dtype=score.dtype).view(score.shape)


def gated(gate: BlockMovement, weights: dict[str, Tensor], scores: dict[str, Any]) -> tuple[dict[str, Tensor], Tensor]:
    """What the model computes with, as autograd sees it, and the penalty."""
    share = gate.schedule.share(gate.step, gate.total_steps)
    masks = {key: open_scores(s, gate.threshold * share) for key, s in scores.items()}
    through = {key: masks[key] + s - s.detach() for key, s in scores.items()}
    sides = [gate.block, gate.block] if isinstance(gate.block, int) else [*gate.block]
    found, means = dict(weights), {"attention": [], "feed-forward": []}  # type: dict[str, Tensor], dict[str, list[Tensor]]
    for name, weight in weights.items():
        attention, other = ATTENTION.search(name), FEED_FORWARD.search(name)
        rows, columns = (torch.arange(length) for length in weight.shape) if weight.dim() == 2 else (None, None)
        if rows is None or not (attention or other):
            continue
        bias = name.replace("weight", "bias")
        if attention or gate.feed_forward == "block":
            high, wide = sides[::-1] if attention and attention[2] == "output.dense" else sides
            factor, mask = (one[name][rows[:, None] // high, columns // wide] for one in (through, masks))
            means["attention" if attention else "feed-forward"].append(scores[name].sigmoid().mean())
        else:
            key, first = f"feed-forward unit {other[1]}", other[2] == "intermediate"
            factor, mask = (
                one[key][rows[:, None] if first else columns].expand(weight.shape) for one in (through, masks)
            )
            if first:
                means["feed-forward"].append(scores[key].sigmoid().mean())
        found[name] = weight * factor
        if gate.biases and bias in weights:
            found[bias] = weights[bias] * mask.any(1)
    of = {"attention": gate.attention_weight, "feed-forward": gate.feed_forward_weight}
    sums = [of[kind] * torch.stack(each).mean() for kind, each in means.items()]
    return found, gate.penalty * share / 2 * (sums[0] + sums[1])
