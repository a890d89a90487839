"""MLPruning: heads, rows and blocks by learned keep ratios (Yao et al. 2021, arXiv:2105.14636)."""

from math import prod
from typing import Annotated, Any, ClassVar, Literal, get_args

import torch
from torch import nn

from trainflat.core.schedules import ScheduleOption
from trainflat.core.settings import Number, Word
from trainflat.pruning.gates.block_units import block_units, entries_of
from trainflat.pruning.gates.keep_ratios import KeepRatio, RatioPenalty, Size
from trainflat.pruning.gates.learned import LearnedMask, MaskOptions
from trainflat.pruning.gates.pressure import check_reachable
from trainflat.pruning.gates.row_units import row_units
from trainflat.pruning.gates.units import MaskGroup, Unit
from trainflat.pruning.options import NON_NEGATIVE, SparsityOption

Level = Literal["structure", "block"]
_SIDE = Number("is a number of rows and columns, at least 1", lambda x: x >= 1, whole=True)


class MLPruning(MaskOptions, LearnedMask):
    r"""Learns how many heads, rows or blocks of each matrix stay, beside which ones do.

    Of a group of n units the ``ceil(sigmoid(theta) n)`` with the highest scores S are open, and theta is learned as S
    is: by movement, and by a penalty while the model is larger than it should be; see
    :class:`~trainflat.pruning.gates.keep_ratios.RatioPenalty`. Three levels, the first two together:

    * ``structure``: in each layer the heads, which are rows of query, key and value matrices together; rows of the
      attention's output matrix; rows of the first and of the second feed-forward matrix. Biases go with their rows. As
      nothing reads columns behind heads and units that are gone, these are zero as well.
    * ``block``: blocks of each matrix, biases left as they are. Published as a second training, of the model that is
      left of the first and with it as teacher.

    Heads and feed-forward units are taken out by ``shrink(model, gate.kept())``. Rows of output matrices are outputs,
    which the residual passes by whole: their zeros stay in the smaller model. docs/gates.md says what a narrower matrix
    that adds to some of the outputs would save.

    Departs in that the number of open units is that of theta at every pass in float64, in the order of equal scores
    (the last in index order stay), in that gradients are clipped unscaled under fp16, in that sizes of groups count by
    the entries that they have, which is the published formula for BERT, and in that rows are not rounded up to blocks
    before the second training, where blocks at edges may be smaller. Distillation of attention probabilities is not
    part of it. Of a model of unknown structure the rows of each prunable matrix are units.

    Args:
        model: Whose weights are masked: the matrices of its layers. The pooler is not, as published.
        target_sparsity: Share of the layers' weights to drop in the end.
        penalty: lambda of the published commands.
        level: ``"structure"`` or ``"block"``.
        block: Rows and columns of a block; published: 16 and 32.
        first_ratio: What theta begins at: sigmoid(10) keeps everything, as published. Under Adam theta moves by about
            ``score_lr`` per step, so that it takes a thousand steps of 0.01 to come down: short runs begin lower.
        schedule: When the target rises; ``"constant"``, at once, as published.
        score_lr: Of scores and thetas.
        perturb: See :class:`~trainflat.pruning.gates.LearnedMask`.
    """

    whole_units: ClassVar[bool] = True
    ranked_at_once: ClassVar[bool] = False

    target_sparsity: SparsityOption = 0.8
    penalty: Annotated[float, NON_NEGATIVE] = 20000.0
    level: Annotated[Level, Word(get_args(Level))] = "structure"
    block: Annotated[int, _SIDE] = 32
    first_ratio: Annotated[float, Number("is a number", lambda x: True)] = 10.0
    schedule: ScheduleOption = "constant"
    unit: Unit = "row"  # no option: `level` says it

    def __init__(self, model: nn.Module, *args: Any, **options: Any) -> None:
        MaskOptions.__init__(self, *args, **options)
        groups, size = _units(self, model)
        self.keep = KeepRatio()
        pressure = RatioPenalty(self.keep, self.penalty, self.target_sparsity, size)
        LearnedMask.__init__(self, model, self.keep, pressure, **self.for_mask() | {"units": groups})

    def refuse_unfit(self) -> None:
        super().refuse_unfit()
        self.check_units(self, self.model)

    @classmethod
    def check_units(cls, options: Any, model: nn.Module) -> None:
        """Raises InputError for a target that a unit of each group is too much for; rows and blocks fit any model."""
        groups, size = _units(options, model)
        if groups:
            least = size.of(dict.fromkeys(groups, torch.zeros((), dtype=torch.float64)))
            check_reachable(options.target_sparsity, float(least))

    def prepare(self) -> None:
        super().prepare()
        first = {name: torch.tensor(self.first_ratio).to(score) for name, score in self.scores.items()}
        self.keep.ratios = {name: nn.Parameter(theta) for name, theta in first.items()}
        self.scores |= {f"ratio {name}": theta for name, theta in self.keep.ratios.items()}


def _units(options: Any, model: nn.Module) -> tuple[dict[str, MaskGroup], Size]:
    if options.level == "structure":
        groups, parts = row_units(model)
    else:
        attentions, others = block_units(model, (options.block, options.block), "block", biases=False)
        groups = {**attentions, **others}
        parts = [(int(entries_of(group).sum()), (name,)) for name, group in groups.items()]
    return groups, Size(parts, {name: prod(group.shape) for name, group in groups.items()})
