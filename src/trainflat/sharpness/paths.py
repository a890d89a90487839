"""Moves weights along lines and planes through the models that span them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Generator, Tensor, nn

from trainflat.core.errors import InputError
from trainflat.core.foreach import foreach
from trainflat.core.formatting import plural
from trainflat.objective.base import Objective
from trainflat.objective.vectors import Vector, apart
from trainflat.sharpness.measure import check_seed

State = Mapping[str, Tensor]
Direction = Sequence[Tensor]  # a tensor for each of an objective's weights
# Of the longer side: below it three points are on a line as far as float32 weights can tell.
_FLAT = 1e-6
_VANISHING = 1e-290  # squares of lengths below have lost digits
_PIECE = 2**16


class AffineSubspace:
    """Writes points ``origin + sum_k c_k * directions[k]`` into an objective's weights in place.

    Every point is computed from the origin, since steps from one to the next would add up their rounding. Weights that
    no direction moves are written once, on entering.
    """

    def __init__(self, objective: Objective, origin: Vector, directions: Sequence[Direction]) -> None:
        self.weights, self.origin = objective.weights, origin
        self.directions = [_in_kind(direction, origin) for direction in directions]
        moved = [any(map(torch.any, parts)) for parts in zip(*self.directions, strict=True)]
        sides = (self.weights, origin, *self.directions)
        self._moving = [piece for *same, moves in zip(*sides, moved, strict=True) if moves for piece in _views(*same)]

    def enter(self) -> None:
        """Sets all weights to the origin."""
        put(self.weights, self.origin)

    @torch.no_grad()
    def stand_at(self, *coordinates: float) -> None:
        """Moves the weights; they must stand somewhere in the subspace already."""
        for weight, start, *ways in self._moving:
            weight.copy_(start)
            for way, coordinate in zip(ways, coordinates, strict=True):
                weight.add_(way, alpha=coordinate)


def _views(*same: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Returns splits tensors of one shape into pieces that stay in the processor's cache between operations."""
    whole = [tensor.detach() for tensor in same]
    if all(tensor.is_contiguous() for tensor in whole):
        return zip(*(torch.split(tensor.view(-1), _PIECE) for tensor in whole), strict=True)
    return iter([tuple(whole)])


@torch.no_grad()
def put(weights: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Writes ``values`` into ``weights``."""
    if weights:
        foreach("copy_", list(weights), list(values))


def steps(low: float, high: float, count: int) -> list[float]:
    """Returns evenly spaced values from ``low`` to ``high``, both of them exact."""
    return [low * (1 - k / (count - 1)) + high * (k / (count - 1)) for k in range(count)]


def loss_here(objective: Objective) -> float | None:
    """Measures the loss at the current weights; None if it is not finite, as may happen far from a minimum."""
    value = objective.value()
    return value if math.isfinite(value) else None


def rows_of(count: int) -> str:
    """Describes in words the rows that were measured on."""
    return plural(count, "row", form=",")


def check(holds: bool, otherwise: str) -> None:
    """Raises :class:`InputError` with that text unless the condition holds."""
    if not holds:
        raise InputError(otherwise)


def filter_normalised(objective: Objective, seed: int = 0) -> Vector:
    r"""Draws a random direction with the row norms of the weights (Li et al., NeurIPS 2018, arXiv:1712.09913).

    :math:`d_{ij} \leftarrow d_{ij} / \|d_{ij}\| \cdot \|w_{ij}\|` with d Gaussian, over layers i and *filters* j:
    here the output rows of weight matrices and the rows of embeddings. As an option of the authors' code has it, biases
    and the weights of norms (all tensors of one dimension) stay where they are. A weight that the objective's masks
    prune never moves, and counts in no length.

    Returns:
        One tensor for each of the objective's weights, in the weights' own units: at 1 every row has been displaced by
        its own length.

    Raises:
        InputError: a seed that is no whole number from 0 on.
    """
    check_seed(seed)
    generator = Generator().manual_seed(seed)
    drawn = zip(objective.random_direction(generator), objective.weights, objective.kept, strict=True)
    return [_like_rows(d, w.detach() if kept is None else w.detach() * kept) for d, w, kept in drawn]


def _like_rows(direction: Tensor, weight: Tensor) -> Tensor:
    if weight.ndim < 2:
        return torch.zeros_like(direction)
    rows = (-1, *[1] * (weight.ndim - 1))
    length, wanted = (t.flatten(1).norm(dim=1, dtype=torch.float64).view(rows) for t in (direction, weight))
    stretch: Tensor = wanted / length.clamp_min(torch.finfo(torch.float64).tiny)  # a row may be pruned altogether
    return direction * stretch.to(direction.dtype)


def through(points: Sequence[Vector], names: Sequence[str]) -> tuple[Vector, Vector, list[tuple[float, float]]]:
    r"""Computes an orthonormal basis of the plane through three points, by Gram-Schmidt from the first.

    With :math:`d_1 = w_1 - w_0` and :math:`d_2 = w_2 - w_0`: :math:`u = d_1 / \|d_1\|`, and v is the part of d_2 at
    right angles to u, divided by its length. Computed in float64.

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
        rest += d2.dot(d2).item()  # not from the sums above: a difference loses digits
        along_u.copy_(d1.div_(a or 1.0))
        along_v.copy_(d2)
    c = math.sqrt(rest)
    if _is_flat(d11, d22, rest):
        raise InputError(f"{', '.join(names)} are on one line, so that they span no plane. Give three other models.")
    foreach("div_", v, c)
    return u, v, [(0.0, 0.0), (a, 0.0), (along * a, c)]


def on_one_line(first: Vector, second: Vector) -> bool:
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
    """Decides from the squared lengths of two sides and of the second one's part orthogonal to the first."""
    return min(d11, rest) < _VANISHING or math.sqrt(rest) <= _FLAT * math.sqrt(d22)


def _pieces(*vectors: Vector) -> Iterator[tuple[Tensor, ...]]:
    """Yields the same entries of several flat vectors, few enough that float64 copies stay in the cache."""
    for same in zip(*vectors, strict=True):
        yield from zip(*(tensor.reshape(-1).split(_PIECE) for tensor in same), strict=True)


def _sides(origin: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Computes the directions from the first point to the others, in float64."""
    start = origin.to(torch.float64)
    return first.to(torch.float64) - start, second.to(torch.float64) - start


def _gram(d1: Tensor, d2: Tensor) -> Tensor:
    """Computes the inner products d1·d1, d1·d2 and d2·d2, as a tensor [3] on the CPU."""
    return torch.stack([d1.dot(d1), d1.dot(d2), d2.dot(d2)]).cpu()


def _in_kind(direction: Sequence[Tensor], like: Sequence[Tensor]) -> Vector:
    return [d.to(o.device, o.dtype) for d, o in zip(direction, like, strict=True)]


def given(objective: Objective, direction: Direction) -> Vector:
    """Checks a given direction, and sets it to 0 where the objective's masks prune.

    Raises:
        InputError: it does not fit the objective's weights, or is not finite.
    """
    wanted, found = ([getattr(t, "shape", None) for t in side] for side in (objective.weights, direction))
    if wanted != found:
        raise InputError(
            f"a direction has a tensor for each of the objective's {plural(len(wanted), 'weight')}, in their order "
            "and shapes; "
            f"this one has {len(found)}. See `filter_normalised` for one that fits."
        )
    for key, entries in zip(objective.names, direction, strict=True):
        _finite(entries, key, "the direction")
    return objective.restrict([apart(d, w) for d, w in zip(direction, objective.weights, strict=True)])


def check_states(points: Mapping[str, State]) -> None:
    """Checks that models are given as state dicts by name."""
    check(isinstance(points, Mapping), f"points are state dicts by name, got a {type(points).__name__}.")
    for name, state in points.items():
        check(isinstance(name, str), f"points are state dicts by name, got {name!r} for a name.")
        kind = type(state).__name__
        check(isinstance(state, Mapping), f"{name} is a {kind}, no state dict. Give what `state_dict()` of it returns.")


def own_weights(objective: Objective) -> Vector:
    """Returns copies the weights of the model.

    Raises:
        InputError: they are not finite.
    """
    pairs = zip(objective.names, objective.weights, strict=True)
    return [_finite(weight.detach().clone(), key, "the model") for key, weight in pairs]


def weights_of(objective: Objective, state: State, name: str, head: State | None = None) -> Vector:
    """Selects a model's values for the objective's weights, in their dtype; 0 where masks prune.

    Args:
        head: Values that stand in for those of the model's own task head, whatever that is.

    Raises:
        InputError: the state lacks a weight, has it in another shape or not finite, or has weights that the
            objective's model does not have.
    """
    found, values = [], {**state, **(head or {})}
    for key, weight, kept in zip(objective.names, objective.weights, objective.kept, strict=True):
        value = value_in(values, key, weight, name)
        found.append(value if kept is None else value * kept)
    _check_surplus(objective, state, name, getattr(objective.model, "base_model_prefix", "") if head else "")
    return found


def _check_surplus(objective: Objective, state: State, name: str, within: str) -> None:
    """Refuses weights that the model lacks: they would count in no distance.

    What is not floating-point is no weight: older versions of transformers saved ``position_ids``, for one.
    """
    model = objective.model
    known = {*objective.names, *model.state_dict(), *dict(model.named_parameters(remove_duplicate=False))}
    known |= dict(model.named_buffers(remove_duplicate=False)).keys()
    for key in state:
        is_weight = isinstance(state[key], Tensor) and state[key].is_floating_point()
        if is_weight and key not in known and key.startswith(within):
            raise InputError(
                f"{name} has a weight {key}, which the model lacks. Give state dicts of the same architecture."
            )


def value_in(state: State, key: str, weight: Tensor, name: str) -> Tensor:
    """Selects a model's value for one weight, in the dtype of that weight.

    Raises:
        InputError: the state lacks the weight, or has it in another shape or not finite.
    """
    value = state.get(key)
    if not isinstance(value, Tensor):
        raise InputError(f"{name} has no weight {key}, which the model has. Give state dicts of the same architecture.")
    if value.shape != weight.shape:
        shapes = f"shape {list(value.shape)} in {name}, but {list(weight.shape)} in the model"
        raise InputError(f"{key} has {shapes}. Give state dicts of the same architecture.")
    return _finite(apart(value.detach().to(weight.device, weight.dtype), weight), key, name)


def _finite(value: Tensor, key: str, name: str) -> Tensor:
    if not value.isfinite().all():
        raise InputError(f"{key} of {name} holds NaN or infinite values; a landscape needs finite weights.")
    return value


def head_names(model: nn.Module) -> list[str]:
    """Returns the names of the task head's parameters: those outside transformers' ``base_model``.

    Raises:
        InputError: the model has no encoder and head that could be told apart.
    """
    encoder = getattr(model, "base_model", model)
    inside = {id(p) for p in encoder.parameters()}
    outside = [name for name, p in model.named_parameters() if id(p) not in inside]
    if not outside:
        raise InputError(f"{type(model).__name__} has no task head beside an encoder. Leave `head` out.")
    return outside


@contextmanager
def standing(model: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Gives some parameters other values for the block, and restores them afterwards, bit for bit."""
    parameters = [model.get_parameter(name) for name in values]
    before = [p.detach().clone() for p in parameters]
    try:
        put(parameters, list(values.values()))
        yield
    finally:
        put(parameters, before)
