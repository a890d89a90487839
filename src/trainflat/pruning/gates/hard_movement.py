"""Movement pruning (Sanh, Wolf and Rush, NeurIPS 2020, arXiv:2005.07683), with a hard threshold."""

from typing import Any

from torch import nn

from trainflat.pruning.gates.functions import TopK
from trainflat.pruning.gates.learned import LearnedMask, MaskOptions
from trainflat.pruning.options import ScopeOption, SparsityOption, Steps


class HardMovement(MaskOptions, LearnedMask):
    """Keeps the weights with the highest scores; a score falls while its weight moves towards 0.

    ``M = Top_v(S)``, scores start at 0 and are learned straight through: ``dL/dS = G * W``, for pruned weights too, so
    that these can come back. The kept share v falls by ``schedule``. In the published code the scores are parameters of
    the model, so that its gradients and theirs are clipped together; FlatTrainer does so.

    Args:
        model: Whose weights are masked.
        sparsity: Share of the scores, one per ``unit``, to drop in the end, in [0, 1).
        scope: ``"layer"`` ranks each matrix on its own, as published; ``"global"`` all scores together, also so that a
            matrix may be emptied: ``--global_topk`` of the published code leaves each one 0.5 % at least.
        schedule: When the sparsity rises; above 0 only after the first step, because all scores begin alike.
        refresh: Optimizer steps for which a threshold is kept; 1 selects exactly for every step, as published. What is
            evaluated and what training ends with is always selected exactly.
        unit: See :class:`~trainflat.pruning.gates.LearnedMask`; also for the other arguments.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> model, inputs = torch.nn.Linear(8, 1, bias=False), torch.ones(4, 8)
        >>> gate = HardMovement(model, sparsity=0.5, schedule="linear", refresh=1)
        >>> gate.begin(total_steps=20)
        >>> groups = [{"params": model.parameters()}, {"params": gate.scores.values(), **gate.score_group()}]
        >>> optimizer = torch.optim.AdamW(groups, lr=1e-2)
        >>> for step in range(20):
        ...     optimizer.zero_grad()
        ...     with gate.passes():
        ...         model(inputs).square().mean().backward()
        ...     optimizer.step()
        ...     gate.advance(step + 1)
        >>> gate.finish().sparsity, int((model.weight == 0).sum())
        (0.5, 4)
    """

    sparsity: SparsityOption = 0.9
    scope: ScopeOption = "layer"
    refresh: Steps = 16

    def __init__(self, model: nn.Module, *args: Any, **options: Any) -> None:
        MaskOptions.__init__(self, *args, **options)
        LearnedMask.__init__(self, model, TopK(self.sparsity, self.scope, self.refresh), **self.for_mask())
