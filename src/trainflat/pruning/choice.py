"""Choosing which of the scored weights stay."""

from collections.abc import Mapping

import torch
from torch import Tensor

from trainflat.core.errors import InputError
from trainflat.core.formatting import plural
from trainflat.pruning.cut import find_cut, pack_kept
from trainflat.pruning.keys import Array, Keys, Magnitudes
from trainflat.pruning.masks import Masks, Shape, check_same
from trainflat.pruning.options import SCOPE, SHARE, Scope


def keep_highest(
    scores: Mapping[str, Tensor], sparsity: float, scope: Scope = "global", masks: Masks | None = None
) -> Masks:
    """Drop the lowest scores until the share ``sparsity`` of the entries is gone.

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
    sparsity, scope = SHARE.read("sparsity", sparsity), SCOPE.read("scope", scope)
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
    """Shuffle each mask: as many entries of each tensor are kept as in ``masks``, at random places.

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
    drop = round(sparsity * keys.count)
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
