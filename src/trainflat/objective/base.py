"""Computes the loss over fixed data as a function of the weights, on which sharpness and pruning scores rest."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal, Self, get_args

import torch
from torch import Generator, Tensor, nn

from trainflat.anatomy.heads import loss_count
from trainflat.anatomy.params import named_weights, unwrapped
from trainflat.core.errors import InputError, UnknownName
from trainflat.core.foreach import foreach
from trainflat.core.progress import Progress
from trainflat.objective.passes import Effort, Kind, Meter
from trainflat.objective.state_guard import StateGuard, twice_differentiable
from trainflat.objective.vectors import Vector, drawn, fitting, norm

Batch = Mapping[str, Tensor]
Loss = Callable[[nn.Module, Batch], Tensor]
Product = Callable[[Sequence[Tensor]], Vector]
ProductMethod = Literal["exact", "differences"]

# Half the distance between the two gradients of a difference, as a 2-norm: the one that balances the rounding of
# the gradient against the third derivative, about the cube root of the type's precision.
_RADIUS = {torch.float64: 1e-5}
_RADIUS_OF_FLOATS = 1e-2


def model_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Returns a transformers model's own loss: the mean over the rows of a batch that holds the answers."""
    loss = model(**batch).loss
    if not isinstance(loss, Tensor):
        raise InputError(f"{type(model).__name__} returned no loss. Give batches with labels, or a loss of your own.")
    return loss


class Objective:
    """The mean loss of a model over fixed micro-batches, as a function of its weights.

    The total is the mean over all rows, whichever way they are cut into batches, summed in float64. The model computes
    without dropout. Whatever is asked, the model comes back as it was, bit for bit (see :meth:`measuring`).
    A direction is a list of tensors in the order and shapes of :attr:`weights`.

    Args:
        model: On the device where it shall run.
        batches: Tensors by name; the first dimension of each is the rows. Moved to the model's device when needed.
        loss: Scalar mean loss over the rows of one batch.
        parameters: The weights by name; those that require gradients if not given.
        masks: Boolean, True = kept, by names of ``parameters``: directions, gradients and products are 0 where a mask
            is False, so that a pruned model is measured among its surviving weights only.
        progress: Told of every micro-batch while a measure is taken.

    Raises:
        InputError: no rows, no parameters, or a mask that fits none.

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> rows = {"x": torch.eye(2)}
        >>> objective = Objective(model, [rows], loss=lambda model, batch: model(batch["x"]).square().mean())
        >>> [h.tolist() for h in objective.hvp([torch.tensor([[1.0, 2.0]])])]
        [[[1.0, 2.0]]]
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Sequence[Batch],
        *,
        loss: Loss = model_loss,
        parameters: Mapping[str, nn.Parameter] | None = None,
        masks: Mapping[str, Tensor] | None = None,
        progress: Progress | None = None,
    ) -> None:
        named = parameters if parameters is not None else _trainable(model)
        self.model, self.loss, self.meter = unwrapped(model), loss, Meter(progress or Progress())
        self.batches = [batch for batch in batches if _rows(batch)]
        self.rows = sum(map(_rows, self.batches))
        if not self.rows:
            raise InputError("the split is empty: a measure needs at least one row.")
        if not named:
            raise InputError(f"{type(model).__name__} has no parameters to measure. Name some that may move.")
        self.names = list(named)
        self.weights: list[Tensor] = list(named.values())
        self.device = self.weights[0].device
        self.kept = fitting(masks or {}, named)
        pairs = zip(self.weights, self.kept, strict=True)
        self.size = sum(w.numel() if kept is None else int(kept.sum()) for w, kept in pairs)
        self._guard = StateGuard(self.model, self.weights)

    # What can be asked

    def value(self) -> float:
        """Computes the mean loss over all rows."""
        total = 0.0
        with self.measuring(), torch.no_grad():
            for batch, share in self._shares():
                total += share * self.loss(self.model, batch).item()
                self._count("values", batch)
        return total

    def gradient(self) -> Vector:
        """Computes the gradient of :meth:`value`, summed in float32 at least; leaves every ``grad`` alone."""
        return self.value_and_gradient()[1]

    def value_and_gradient(self) -> tuple[float, Vector]:
        """Computes both from one pass."""
        value, total = 0.0, self.zeros()
        with self.measuring():
            for batch, share in self._shares():
                loss = self.loss(self.model, batch)
                _add(total, self._differentiate(loss), share)
                value += share * loss.item()
                self._count("gradients", batch)
        return value, self.restrict(total)

    def hvp(self, vector: Sequence[Tensor]) -> Vector:
        r"""Computes :math:`H v` with the Hessian of :meth:`value` exactly, reverse over reverse (Pearlmutter, 1994).

        The graph of the gradient is built anew for each micro-batch, so only one is in memory.
        """
        vector, total = self.restrict(vector), self.zeros()
        with self.measuring():
            for batch, share in self._shares():
                _add(total, self._product(self._gradient_graph(batch), vector), share)
                self._count("products", batch)
        return self.restrict(total)

    def hvp_by_differences(self, vector: Sequence[Tensor]) -> Vector:
        r"""Approximates :math:`H v` by two gradients: :math:`(g(w + r u) - g(w - r u)) \|v\| / 2r` with u = v / \|v\|.

        Needs no second derivative and no more memory than a gradient. r = 1e-2, in float64 1e-5.
        """
        vector = self.restrict(vector)
        length = norm(vector)
        if length == 0:
            return self.zeros()
        radius = _RADIUS.get(self.weights[0].dtype, _RADIUS_OF_FLOATS)
        with self.displaced(vector, radius / length):
            after = self.gradient()
        with self.displaced(vector, -radius / length):
            before = self.gradient()
        foreach("sub_", after, before)
        foreach("mul_", after, length / (2 * radius))
        return after

    @contextmanager
    def products(self, method: ProductMethod = "exact") -> Iterator[Product]:
        """Yields a function for many Hessian-vector products at the weights as they stand.

        ``"exact"`` with a single batch holds the graph of the gradient, and a product then costs one more backward pass
        through it; torch refuses that once the weights were displaced meanwhile, even if they are back. With several
        batches it is :meth:`hvp`. ``"differences"`` is :meth:`hvp_by_differences`.
        """
        if method not in get_args(ProductMethod):
            raise UnknownName("way to multiply with the Hessian", method, get_args(ProductMethod))
        with self.measuring():
            if method == "differences":
                yield self.hvp_by_differences
            elif len(self.batches) > 1:
                yield self.hvp
            else:
                batch = self._on_device(self.batches[0])
                graph = self._gradient_graph(batch)
                self._count("gradients", batch)

                def product(vector: Sequence[Tensor]) -> Vector:
                    result = self._product(graph, self.restrict(vector), hold=True)
                    self._count("products", batch)
                    return self.restrict(result)

                yield product

    # Moving about

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Restores the model after the block, bit for bit, also after an exception; inside, weights may be moved.

        Weights, buffers, modes, ``grad``, ``requires_grad``, attention and random states come back. Every method of
        this class does this on its own; around many calls it is done once. May be nested.
        """
        with self._guard():
            yield

    @contextmanager
    def displaced(self, direction: Sequence[Tensor], scale: float = 1.0) -> Iterator[None]:
        """Moves the weights to ``w + scale * direction`` inside the block, and back to ``w``, bit for bit. Nests."""
        with self.measuring():
            origin = [w.detach().clone() for w in self.weights]
            try:
                with torch.no_grad():
                    foreach("add_", self.weights, self.restrict(direction), alpha=scale)
                yield
            finally:
                with torch.no_grad():
                    foreach("copy_", self.weights, origin)

    def restrict(self, direction: Sequence[Tensor]) -> Vector:
        """Sets a direction to 0 where a mask is False; the same tensors where there is no mask."""
        pairs = zip(direction, self.kept, strict=True)
        return [d if kept is None else d * kept for d, kept in pairs]

    def zeros(self) -> Vector:
        """Makes the zero direction, in float32 at least."""
        return [torch.zeros_like(w, dtype=torch.promote_types(w.dtype, torch.float32)) for w in self.weights]

    def random_direction(self, generator: Generator) -> Vector:
        """Draws standard normal entries, 0 where a mask is False. The numbers do not depend on the device."""
        return self.restrict([drawn(torch.randn(w.shape, generator=generator), w) for w in self.weights])

    def random_signs(self, generator: Generator) -> Vector:
        """Draws +1 or -1 with even chances, 0 where a mask is False; from a generator on the CPU as well."""
        return self.restrict(
            [drawn(torch.randint(0, 2, w.shape, generator=generator) * 2 - 1, w) for w in self.weights]
        )

    def split(self, rows: int) -> Iterator[Self]:
        """Yields objectives of at most ``rows`` rows each, none across batches, in order; their passes count here."""
        for batch in self.batches:
            for start in range(0, _rows(batch), rows):
                part = copy.copy(self)
                part.batches = [{name: tensor[start : start + rows] for name, tensor in batch.items()}]
                part.rows = _rows(part.batches[0])
                yield part

    # What it costs

    @contextmanager
    def taking(self, what: str, evaluations: float) -> Iterator[Callable[[], Effort]]:
        """Shows the progress of one measure, and yields a function that returns its effort so far.

        Args:
            what: The measure's name, for the progress that is shown.
            evaluations: Passes over all rows that it will take, about.
        """
        before = dict(self.meter.rows)

        def effort() -> Effort:
            spent = {kind: (rows - before[kind]) / self.rows for kind, rows in self.meter.rows.items()}
            return Effort(self.rows, len(self.batches), self.size, **spent)

        with self.measuring(), self.meter.watched(what, round(evaluations * self.rows)):
            yield effort

    def _shares(self) -> Iterator[tuple[Batch, float]]:
        """Yields the batches, on the model's device, each with its share of what the mean loss runs over."""
        counts = [loss_count(batch) for batch in self.batches]
        for batch, count in zip(self.batches, counts, strict=True):
            yield self._on_device(batch), count / sum(counts)

    def _on_device(self, batch: Batch) -> Batch:
        return {name: tensor.to(self.device) for name, tensor in batch.items()}

    def _count(self, kind: Kind, batch: Batch) -> None:
        self.meter.count(kind, _rows(batch))

    def _differentiate(self, loss: Tensor, *, create_graph: bool = False) -> Vector:
        found = torch.autograd.grad(
            loss, self.weights, create_graph=create_graph, allow_unused=True, materialize_grads=True
        )
        return list(found)

    def _gradient_graph(self, batch: Batch) -> Vector:
        with twice_differentiable(self.model):
            return self._differentiate(self.loss(self.model, batch), create_graph=True)

    def _product(self, graph: Sequence[Tensor], vector: Sequence[Tensor], hold: bool = False) -> Vector:
        """Differentiates ``graph @ vector``; a gradient that depends on no weight has no part in it."""
        pairs = [(g, v.to(g.dtype)) for g, v in zip(graph, vector, strict=True) if g.requires_grad]
        if not pairs:
            return self.zeros()
        outputs, along = zip(*pairs, strict=True)
        found = torch.autograd.grad(
            outputs, self.weights, along, retain_graph=hold, allow_unused=True, materialize_grads=True
        )
        return list(found)


def _trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in named_weights(model).items() if p.requires_grad}


def _rows(batch: Batch) -> int:
    return next((tensor.size(0) for tensor in batch.values()), 0)


def _add(total: Vector, part: Vector, share: float) -> None:
    foreach("add_", total, part, alpha=share)
