"""What every pruner shares: choosing and zeroing."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from trainflat.anatomy.params import prunable, unwrapped
from trainflat.core.errors import InputError, UnknownName
from trainflat.core.formatting import plural
from trainflat.objective import Objective
from trainflat.pruning.cut import find_cut, pack_kept
from trainflat.pruning.keys import Array, Keys, Magnitudes
from trainflat.pruning.masks import Masks, Shape, check_same

Scope = Literal["global", "layer"]


class Pruner(ABC):
    """Drops the weights with the lowest scores. A method writes :meth:`scores` and nothing else.

    Args:
        model: Its :func:`trainflat.anatomy.params.prunable` weights are pruned.
        sparsity: Share of them to drop, in [0, 1), counting those that ``masks`` already drops.
        scope: ``"global"`` ranks all weights together, ``"layer"`` each matrix on its own.
        masks: What is pruned already and stays so, whatever its score.
        seed: Of methods that draw.
        objective: Of methods that ask for the loss: on the model's weights and some rows; or what makes one of
            (rows, rows per micro-batch), which is called only if the method asks. The others never look at it, so
            whoever calls need not know which is which.

    Raises:
        InputError: for a sparsity outside [0, 1), an unknown scope, a model without prunable weights, and masks of
            other weights.
    """

    def __init__(
        self,
        model: nn.Module,
        sparsity: float = 0.5,
        scope: Scope = "global",
        masks: Masks | None = None,
        seed: int = 0,
        *,
        objective: Objective | Callable[[int, int], Objective] | None = None,
    ) -> None:
        _check(sparsity, scope)
        self.model, self.sparsity, self.scope, self.masks, self.seed = unwrapped(model), sparsity, scope, masks, seed
        self._objective = objective
        self.weights: dict[str, nn.Parameter] = prunable(model)
        if not self.weights:
            raise InputError(f"{type(model).__name__} has no prunable weights: no matrix outside its embeddings.")
        if masks is not None:
            check_same(_shapes(self.weights), masks.shapes, "the masks already held")

    @abstractmethod
    def scores(self) -> Mapping[str, Tensor]:
        """One number per weight, of the weight's shape; the lowest go."""

    def objective_on(self, rows: int, batch_size: int) -> Objective:
        """The loss on so many rows, for methods that score by it; an objective that was given has its own rows.

        Raises:
            InputError: nobody gave one.
        """
        if self._objective is None:
            raise InputError(
                f"{type(self).__name__} scores by the loss, of which it was told nothing. "
                "Give objective=Objective(model, batches), from trainflat.objective."
            )
        return self._objective if isinstance(self._objective, Objective) else self._objective(rows, batch_size)

    def select(self) -> Masks:
        """The weights that stay; the model is not changed.

        Raises:
            InputError: NaN among the scores, or masks that already drop more than ``sparsity``.
        """
        return keep_highest(self.scores(), self.sparsity, self.scope, self.masks)

    def prune(self) -> Masks:
        """Selects, and sets the other weights to 0."""
        masks = self.select()
        masks.apply_(self.model)
        return masks


def keep_highest(
    scores: Mapping[str, Tensor], sparsity: float, scope: Scope = "global", masks: Masks | None = None
) -> Masks:
    """Drops the lowest scores until the share ``sparsity`` of the entries is gone.

    Exactly ``round(sparsity * n)`` entries go, by Python's ``round`` of the product of floats. ``n`` counts all tensors
    together, or each on its own if ``scope="layer"``. Of equal scores (``-0.0`` equals ``0.0``) the first in index
    order go and the last stay: tensor by tensor in the order of ``scores``, in a tensor by its flat index. So entries
    go in one fixed order: a sparser mask is a subset of every denser one. What ``masks`` drops goes first of all.

    Extra memory: per thread a piece of about 1 MB, 1 % of the scores' bytes for a global cut, and the result, a bit per
    entry. For :class:`~trainflat.pruning.keys.Magnitudes` nothing else; for other scores the scores.

    Args:
        scores: Floating-point tensors of any shape, by name.
        sparsity: Share to drop, in [0, 1).
        scope: Whether entries compete with all others or within their tensor.
        masks: Masks of the same tensors; the result is a subset of them.

    Raises:
        InputError: for a sparsity outside [0, 1), an unknown scope, NaN (names the tensor), and masks of other tensors
            or that already drop more than is asked for.

    Example:
        >>> keep_highest({"a": torch.tensor([3.0, 1.0]), "b": torch.tensor([1.0, 2.0])}, 0.25)["a"]
        tensor([ True, False])
    """
    _check(sparsity, scope)
    shapes = _shapes(scores)
    if masks is not None:
        check_same(shapes, masks.shapes, "the masks already held")
        masks = masks if len(masks) == len(shapes) else Masks({name: masks[name] for name in shapes})
    if scope == "global":
        return Masks.of_packed(_packed(scores, sparsity, masks, "the weights"), shapes)
    packed: dict[str, Array] = {}
    for name in shapes:
        one = Magnitudes({name: scores.signed[name]}) if isinstance(scores, Magnitudes) else {name: scores[name]}
        held = Masks({name: masks[name]}) if masks is not None else None
        packed |= _packed(one, sparsity, held, name)
    return Masks.of_packed(packed, shapes)


def shuffled_within_layers(masks: Masks, seed: int) -> Masks:
    """As many kept entries in every tensor as in ``masks``, at random places.

    A control: does it matter which weights a mask keeps, or only how many per layer (Frankle et al., ICLR 2021,
    arXiv:2009.08576)?

    Example:
        >>> masks = Masks({"a": torch.tensor([True, False, False, False]), "b": torch.tensor([True, True])})
        >>> [m.zeros for m in shuffled_within_layers(masks, seed=1).statistics()]
        [3, 0]
    """
    generator = torch.Generator().manual_seed(seed)
    shuffled = {}
    for name, mask in masks.items():
        order = torch.randperm(mask.numel(), generator=generator)
        shuffled[name] = mask.flatten()[order].view(mask.shape)
    return Masks(shuffled)


def _packed(scores: Mapping[str, Tensor], sparsity: float, masks: Masks | None, what: str) -> dict[str, Array]:
    keys = Keys(scores, masks)
    drop = round(float(sparsity) * keys.count)
    if masks is not None and masks.zeros > drop:
        raise InputError(
            f"sparsity {sparsity} drops {drop} of {plural(keys.count, 'entry', 'entries')} of {what}, but "
            f"{masks.zeros} are pruned "
            "already. Give a sparsity that is not lower."
        )
    return pack_kept(keys, find_cut(keys, drop))


def _shapes(scores: Mapping[str, Tensor]) -> dict[str, Shape]:
    tensors = scores.signed if isinstance(scores, Magnitudes) else scores
    if not tensors:
        raise InputError("there are no scores to choose by. Give at least one tensor.")
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _check(sparsity: float, scope: str) -> None:
    if not isinstance(sparsity, int | float | np.floating) or not 0 <= sparsity < 1:
        raise InputError(f"sparsity is the share of weights to drop, in [0, 1), got {sparsity}.")
    if scope not in get_args(Scope):
        raise UnknownName("scope", str(scope), get_args(Scope))
