"""Chooses directions in the space of weights: random, given, or through three models."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Generator, Tensor

from trainflat.core.errors import InputError
from trainflat.core.foreach import foreach
from trainflat.core.formatting import plural
from trainflat.objective.base import Objective
from trainflat.objective.vectors import Vector, apart
from trainflat.sharpness.measure import check_seed
from trainflat.sharpness.states import checked_finite

Direction = Sequence[Tensor]  # a tensor for each of an objective's weights
# Ratio of a triangle's height to its side below which three points count as on one line. Float32 rounds a weight by up
# to 6e-8 of itself, and fine-tuned models differ by a few percent of their weights, so that rounding alone gives about
# this ratio.
_FLAT = 1e-6
_VANISHING = 1e-290  # squared lengths below are close to the denormal numbers, which have fewer digits
PIECE = 2**16  # entries; float64 copies of some pieces of this size stay in the processor's cache


def filter_normalised(objective: Objective, seed: int = 0) -> Vector:
    r"""Draws a random direction with the row norms of the weights (Li et al., NeurIPS 2018, arXiv:1712.09913).

    :math:`d_{ij} \leftarrow d_{ij} / \|d_{ij}\| \cdot \|w_{ij}\|` with d Gaussian, over layers i and *filters* j:
    here the output rows of weight matrices and the rows of embeddings. Biases and the weights of norms (all tensors of
    one dimension) do not move, an option of the authors' code. A weight that the objective's masks prune never moves,
    and counts in no norm.

    Returns:
        One tensor for each of the objective's weights, in units of the weights: at coordinate 1 every row has moved by
        its own norm.

    Raises:
        InputError: ``seed`` is not a whole number from 0 on.
    """
    check_seed(seed)
    generator = Generator().manual_seed(seed)
    drawn = zip(objective.random_direction(generator), objective.weights, objective.kept, strict=True)
    return [_with_row_norms(d, w.detach() if kept is None else w.detach() * kept) for d, w, kept in drawn]


def _with_row_norms(direction: Tensor, weight: Tensor) -> Tensor:
    if weight.ndim < 2:
        return torch.zeros_like(direction)
    rows = (-1, *[1] * (weight.ndim - 1))
    length, wanted = (t.flatten(1).norm(dim=1, dtype=torch.float64).view(rows) for t in (direction, weight))
    stretch: Tensor = wanted / length.clamp_min(torch.finfo(torch.float64).tiny)  # no 0 / 0 where a row is pruned
    return direction * stretch.to(direction.dtype)


def checked_direction(objective: Objective, direction: Direction) -> Vector:
    """Checks a user's direction and sets it to 0 where the objective's masks prune.

    Raises:
        InputError: the direction does not fit the objective's weights, or is not finite.
    """
    wanted, found = ([getattr(t, "shape", None) for t in side] for side in (objective.weights, direction))
    if wanted != found:
        raise InputError(
            f"a direction has a tensor for each of the objective's {plural(len(wanted), 'weight')}, in their order "
            f"and shapes; this one has {len(found)}. See `filter_normalised` for one that fits."
        )
    for key, entries in zip(objective.names, direction, strict=True):
        checked_finite(entries, key, "the direction")
    return objective.restrict([apart(d, w) for d, w in zip(direction, objective.weights, strict=True)])


def orthonormal_basis(
    points: Sequence[Vector], names: Sequence[str]
) -> tuple[Vector, Vector, list[tuple[float, float]]]:
    r"""Computes an orthonormal basis of the plane through three points, by Gram-Schmidt from the first.

    With :math:`d_1 = w_1 - w_0` and :math:`d_2 = w_2 - w_0`: :math:`u = d_1 / \|d_1\|`, and v is the part of d_2
    orthogonal to u, divided by its norm. Computed in float64, piece by piece, since float64 copies of three models
    would take six times the memory of one.

    Returns:
        u, v and the coordinates of the points: (0, 0), (a, 0) and (b, c) with a, c > 0.

    Raises:
        InputError: the points are on one line.
    """
    gram = sum((_gram(*_sides(*piece)) for piece in _pieces(*points)), torch.zeros(3, dtype=torch.float64))
    d11, d12, d22 = gram.tolist()
    a, along, rest = math.sqrt(d11), d12 / d11 if d11 else 0.0, 0.0
    u, v = ([torch.empty_like(w, memory_format=torch.contiguous_format) for w in points[0]] for _ in range(2))
    for origin, first, second, along_u, along_v in _pieces(*points, u, v):
        d1, d2 = _sides(origin, first, second)
        d2.sub_(d1, alpha=along)
        rest += d2.dot(d2).item()  # not d22 - d12² / d11, whose digits cancel for points that are nearly on a line
        along_u.copy_(d1.div_(a or 1.0))
        along_v.copy_(d2)
    c = math.sqrt(rest)
    if _is_flat(d11, d22, rest):
        raise InputError(f"{', '.join(names)} are on one line, so that they span no plane. Give three other models.")
    foreach("div_", v, c)
    return u, v, [(0.0, 0.0), (a, 0.0), (along * a, c)]


def are_collinear(first: Vector, second: Vector) -> bool:
    """Returns whether two directions span no plane, computed in float64."""
    gram, rest = torch.zeros(3, dtype=torch.float64), 0.0
    for piece in _pieces(first, second):
        gram += _gram(*(side.to(torch.float64) for side in piece))
    d11, d12, d22 = gram.tolist()
    for piece in _pieces(first, second):
        d1, d2 = (side.to(torch.float64) for side in piece)
        rest += d2.sub(d1, alpha=d12 / d11 if d11 else 0.0).square().sum().item()
    return _is_flat(d11, d22, rest)


def _is_flat(d11: float, d22: float, rest: float) -> bool:
    """Compares the squared norm of the second side's part orthogonal to the first with the squared norms of both."""
    return min(d11, rest) < _VANISHING or math.sqrt(rest) <= _FLAT * math.sqrt(d22)


def _pieces(*vectors: Vector) -> Iterator[tuple[Tensor, ...]]:
    """Yields the same entries of several vectors, flat and in pieces."""
    for same in zip(*vectors, strict=True):
        yield from zip(*(tensor.reshape(-1).split(PIECE) for tensor in same), strict=True)


def _sides(origin: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Computes the differences of two points from the origin, in float64."""
    start = origin.to(torch.float64)
    return first.to(torch.float64) - start, second.to(torch.float64) - start


def _gram(d1: Tensor, d2: Tensor) -> Tensor:
    """Computes the inner products d1·d1, d1·d2 and d2·d2, as a tensor [3] on the CPU."""
    return torch.stack([d1.dot(d1), d1.dot(d2), d2.dot(d2)]).cpu()
