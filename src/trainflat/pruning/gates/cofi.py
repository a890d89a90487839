"""CoFi's gates (Xia, Zhong and Chen, ACL 2022, arXiv:2204.00408): five kinds, from hidden dimensions to sub-layers."""

from typing import Annotated, Any, Literal, get_args

import torch
from torch import Tensor, nn

from trainflat.core.configurable import Configurable
from trainflat.core.errors import InputError
from trainflat.core.schedules import ScheduleOption
from trainflat.core.settings import Check, Word
from trainflat.pruning.gates.functions import HardConcrete
from trainflat.pruning.gates.learned import PerturbOption, ScoreRate
from trainflat.pruning.gates.structural import StructuralGate
from trainflat.pruning.options import NON_NEGATIVE, SparsityOption, TrueOrFalse
from trainflat.pruning.structured.budgets import Budget

Init = Literal["published", "mild"]
_OPEN, _UNITS = 10.0, 0.0  # log((1 - d) / d) of d = 0.5, the drop rate that CoFi's code gives feed-forward units
_SHARPER = 0.8  # "magical number" of CoFi's code


class _GivenBudget(Check):
    """Accepts None and a budget; a recipe cannot write one, and protocols have options for them."""

    def read(self, name: str, value: Any) -> Budget | None:
        if value is not None and not isinstance(value, Budget):
            raise InputError(f"{name} is an object such as Parameters(count=...), got {value!r}.")
        return value

    def dump(self, value: Any) -> Any:
        return None if value is None else type(value).__name__


class CoFiGates(HardConcrete):
    r"""Draws hard-concrete values; in evaluations closes as many gates of a group as are expected to be closed.

    Departs from Louizos et al. (2018), as CoFi's code does: of n gates the ``round(n - sum P(z > 0))`` with the lowest
    scores are 0, the first of equal ones, and the others are :math:`\sigma(0.8\,S / \beta) = \sigma(1.2\,S)`, which is
    0.996 at most. The gate of a whole sub-layer, alone in its group, is 0 where its chance is below a half.
    """

    def final(self, score: Tensor) -> Tensor:
        score = score.detach()
        chances = (score.double() - self.shift).sigmoid()
        gone = round(len(score) - float(chances.sum()))
        values = (score * (_SHARPER / self.temperature)).sigmoid()
        values[torch.argsort(score, stable=True)[:gone]] = 0.0
        return values


class CoFi(Configurable, StructuralGate):
    """Learns which heads, feed-forward units, sub-layers and hidden dimensions go, by gates on activations.

    Defaults are CoFi's for large data sets: one epoch of 20 without gates, two in which the target rises; for small
    ones 4 and 20 of 100. As published, no score has a penalty of its own and neither scores nor multipliers are
    clipped. What decides the size, and what the model computes, is described by
    :class:`~trainflat.pruning.gates.structural.StructuralGate`.

    Args:
        model: A transformers model whose LayerNorms stand after the residual; others need ``hidden: false``.
        target_sparsity: Share of the layers' parameters to drop.
        schedule: When the target rises; its ``start`` is the phase without gates.
        score_lr: Rate of the scores, log alpha in the paper.
        multiplier_lr: Rate of the multipliers' ascent.
        init: ``"published"`` has feed-forward units begin at a chance of 0.83 and a mean of a half, all others open;
            ``"mild"`` has them begin as the others do.
        hidden: See :class:`~trainflat.pruning.gates.structural.StructuralGate`; so are the other arguments.

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> from trainflat.pruning.structured import shrink
        >>> sizes = dict(hidden_size=16, num_attention_heads=2, num_hidden_layers=1, intermediate_size=32, vocab_size=9)
        >>> model = BertModel(BertConfig(**sizes)).eval()
        >>> gate = CoFi(model, target_sparsity=0.6, score_lr=0.5)
        >>> gate.begin(200)
        >>> ids = torch.tensor([[1, 2, 3]])
        >>> for step in range(200):  # the optimizer of this loop would have `gate.param_groups()` too
        ...     gate.advance(step + 1)
        >>> with torch.no_grad(), gate.applied():
        ...     gated = model(ids).pooler_output
        >>> bool(torch.allclose(shrink(model, gate.kept())(ids).pooler_output, gated, atol=1e-5))
        True
    """

    later = ("budget",)

    target_sparsity: SparsityOption = 0.95
    schedule: ScheduleOption = {"name": "linear", "start": 0.05, "hold": 0.85}  # noqa: RUF012 -- an option's default
    score_lr: ScoreRate = 1e-2
    multiplier_lr: ScoreRate = 1e-2
    init: Annotated[Init, Word(get_args(Init))] = "published"
    hidden: TrueOrFalse = True
    tolerance: Annotated[float, NON_NEGATIVE] = 1e-2
    restart: TrueOrFalse = True
    budget: Annotated[Budget | None, _GivenBudget()] = None
    perturb: PerturbOption = None

    def __init__(self, model: nn.Module, *args: Any, **options: Any) -> None:
        Configurable.__init__(self, *args, **options)
        own = {name: getattr(self, name) for name in self._checks if name != "init"}
        StructuralGate.__init__(self, model, CoFiGates(_OPEN), **own)

    def first(self, name: str) -> float:
        published = self.init == "published" and name.startswith("feed-forward unit")
        return _UNITS if published else _OPEN
