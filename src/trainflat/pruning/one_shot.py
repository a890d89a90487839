"""One-shot pruners: a score and a cut, on a model as it is now."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from trainflat.anatomy.params import prunable, unwrapped
from trainflat.core.errors import InputError
from trainflat.pruning import scores as by
from trainflat.pruning.choice import keep_highest
from trainflat.pruning.masks import Masks, check_same
from trainflat.pruning.options import ScopeOption, SparsityOption
from trainflat.pruning.scores.base import ObjectiveSource, Score, ScoredBy, ScoreInputs


class Pruner(ScoredBy):
    """Drops the weights with the lowest scores.

    Args:
        model: Its :func:`trainflat.anatomy.params.prunable` weights are pruned.
        sparsity: Share of them to drop, in [0, 1), counting those that ``masks`` already drops.
        scope: ``"global"`` ranks all weights together, ``"layer"`` each matrix on its own.
        masks: What is pruned already and stays so, whatever its score.
        seed: Of scores that draw.
        objective: Of scores that measure the loss: on the model's weights and some rows; or what makes one of
            (rows, rows per micro-batch), which is called only if the score asks. Other scores never look at it, so that
            callers need not know which is which.
        score: Which weights matter; a named pruner such as :class:`MagnitudePruner` makes its own of ``options``.
        **options: Of the named pruner's score.

    Raises:
        InputError: for a sparsity outside [0, 1), an unknown scope, a model without prunable weights, masks of other
            weights, and options that the score refuses.
    """

    score_class: ClassVar[type[Score]] = by.Magnitude

    sparsity: SparsityOption = 0.5
    scope: ScopeOption = "global"

    def __init__(
        self,
        model: nn.Module,
        *args: Any,
        masks: Masks | None = None,
        seed: int = 0,
        objective: ObjectiveSource = None,
        score: Score | None = None,
        **options: Any,
    ) -> None:
        self.model, self.masks, self.seed, self.objective = unwrapped(model), masks, seed, objective
        self.take_score(score, self.take_options(args, options))
        self.weights: dict[str, nn.Parameter] = prunable(model)
        if not self.weights:
            raise InputError(f"{type(model).__name__} has no prunable weights: no matrix outside its embeddings.")
        if masks is not None:
            check_same(
                {name: tuple(w.shape) for name, w in self.weights.items()}, masks.shapes, "the masks already held"
            )

    def scores(self) -> Mapping[str, Tensor]:
        """Returns the score of each weight, in tensors of the weights' shapes."""
        return self.score.values(ScoreInputs(self.weights, self.masks, self.seed, self.objective))

    def select(self) -> Masks:
        """Returns masks that keep the highest scores; the model is not changed.

        Raises:
            InputError: NaN among the scores, or masks that already drop more than ``sparsity``.
        """
        return keep_highest(self.scores(), self.sparsity, self.scope, self.masks)

    def prune(self) -> Masks:
        """Select, and set the other weights to 0."""
        masks = self.select()
        masks.apply_(self.model)
        return masks


class MagnitudePruner(Pruner, score=by.Magnitude):
    """Drops the weights with the smallest absolute values (Han et al. 2015).

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(8, 8)
        >>> masks = MagnitudePruner(model, sparsity=0.75).prune()
        >>> int((model.weight != 0).sum())
        16
    """


class RandomPruner(Pruner, score=by.Random):
    """Drops weights at random; for one seed a sparser mask is a subset of a denser one.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(8, 8)
        >>> first, second = (RandomPruner(model, sparsity=s, seed=1).select() for s in (0.5, 0.75))
        >>> second.zeros, second.issubset(first)
        (48, True)
    """


class LayerShuffledPruner(Pruner, score=by.LayerShuffled):
    """Drops from every matrix as many weights as magnitude pruning would, at random places (Frankle et al. 2021)."""


class LossPreservationPruner(Pruner, score=by.LossPreservation):
    r"""Drops the weights whose removal changes the loss least, by \|θ·g\| (Molchanov et al. 2019).

    Example:
        >>> import torch
        >>> from trainflat.objective import Objective
        >>> model = nn.Linear(2, 1, bias=False)
        >>> _ = model.weight.data.copy_(torch.tensor([[2.0, -1.0]]))
        >>> rows = [{"x": torch.tensor([[1.0, 9.0]])}]
        >>> bowl = Objective(model, rows, loss=lambda model, batch: (model.weight.square() * batch["x"]).sum() / 2)
        >>> LossPreservationPruner(model, sparsity=0.5, objective=bowl).select()["weight"]
        tensor([[False,  True]])
    """


class GraspPruner(Pruner, score=by.Grasp):
    """Drops the weights whose removal raises the norm of the gradient most, by θ·Hg (Wang et al. 2020)."""


class GradientNormPruner(Pruner, score=by.GradientNorm):
    """Drops the weights whose removal changes the norm of the gradient least, by |θ·Hg| (Lubana and Dick 2021)."""
