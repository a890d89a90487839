"""Scores by what removing a weight does to loss and gradient (Lubana and Dick, ICLR 2021, arXiv:2009.11839).

Both products are signed and per weight; of a group of weights the paper takes their sum, and then its absolute value
where something is to be preserved. Under gradient flow a step changes the loss by the squared norm of the gradient, so
the second one says what a removal does to the speed of training.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar

import torch
from torch import Tensor

from trainflat.core.errors import InputError
from trainflat.objective import Objective, at_temperature, under
from trainflat.pruning.masks import Masks
from trainflat.pruning.options import RowCount
from trainflat.pruning.scores.base import ObjectiveSource, Score, ScoreInputs

Products = dict[str, Tensor]


def loss_change(objective: Objective, weights: Mapping[str, Tensor], masks: Masks | None = None) -> Products:
    r"""Returns :math:`\theta_i g_i`: to first order, how much the loss falls when the weight is removed.

    Args:
        objective: Loss and rows. Whatever the products need of the model, it comes back as it was, bit for bit.
        weights: The weights to score, by name; each is one of the objective's.
        masks: Of these weights. What they drop counts as 0 while the gradient is taken, and gets the product 0.

    Returns:
        A product of its shape for each weight, in float32 at least, in units of the loss.

    Raises:
        InputError: the objective does not move one of the weights, or a product is not finite.

    Example:
        >>> layer = torch.nn.Linear(2, 1, bias=False)
        >>> _ = layer.weight.data.copy_(torch.tensor([[2.0, -1.0]]))
        >>> rows = [{"x": torch.tensor([[1.0, 3.0]])}]
        >>> bowl = Objective(layer, rows, loss=lambda model, batch: (model.weight.square() * batch["x"]).sum() / 2)
        >>> loss_change(bowl, {"weight": layer.weight})["weight"]  # h θ²
        tensor([[4., 3.]])
    """
    with _among(objective, weights, masks) as (part, places), part.taking("pruning scores", 1):
        return _products(weights, part.gradient(), places)


def gradient_norm_change(
    objective: Objective, weights: Mapping[str, Tensor], masks: Masks | None = None, temperature: float = 1.0
) -> Products:
    r"""Returns :math:`\theta_i (H g)_i`: about half the fall of :math:`\|g\|^2` when the weight is removed.

    g and H are those of all weights that the objective moves, among which ``masks`` leave out what they drop: the
    gradient that training would follow. (The code of GraSP takes the prunable weights alone.) One gradient and one
    exact product with the Hessian over all rows, each in the objective's micro-batches.

    Args:
        objective: As for :func:`loss_change`; so are ``weights``, ``masks`` and what is returned.
        weights: By name.
        masks: Of them.
        temperature: Divides the logits of classes and spans; numbers have none.

    Raises:
        InputError: as :func:`loss_change`; or a temperature for an objective with a loss of its own.

    Example:
        >>> layer = torch.nn.Linear(2, 1, bias=False)
        >>> _ = layer.weight.data.copy_(torch.tensor([[2.0, -1.0]]))
        >>> rows = [{"x": torch.tensor([[1.0, 3.0]])}]
        >>> bowl = Objective(layer, rows, loss=lambda model, batch: (model.weight.square() * batch["x"]).sum() / 2)
        >>> gradient_norm_change(bowl, {"weight": layer.weight})["weight"]  # h² θ²
        tensor([[4., 9.]])
    """
    softer = at_temperature(objective, temperature)
    with _among(softer, weights, masks) as (part, places), part.taking("pruning scores", 2):
        return _products(weights, part.hvp(part.gradient()), places)


class MeasuredScore(Score):
    """Scores by what removing a weight does to the loss or its gradient, measured on rows of the training set.

    A choice takes passes of its own, without dropout and without a teacher: over ``rows`` rows a gradient and, for
    second derivatives, a product with the Hessian, in all about ``4 * rows`` rows' worth of training. In a gradual run
    the rows are the same in all choices and processes. The model comes back as it was, bit for bit.

    Args:
        rows: How many rows a recipe draws for it; an objective that is given has its own.
        batch_size: Rows per micro-batch, which only memory depends on.

    Raises:
        InputError: for numbers below 1; when it scores, for a missing objective and for a loss that does not depend on
            the weights.
    """

    measures: ClassVar[bool] = True

    signed: ClassVar[bool] = False
    """Whether the sign of a product counts; else it is dropped, of a group of weights after they were added up."""

    rows: RowCount = 512
    batch_size: RowCount = 16

    @abstractmethod
    def products(self, objective: Objective, weights: Mapping[str, Tensor], masks: Masks | None) -> Products:
        """Returns the signed product of each weight; the products of a group of weights add up."""

    def objective_from(self, given: ObjectiveSource) -> Objective:
        if given is None:
            raise InputError(
                f"{type(self).__name__} scores by the loss and got none. Give objective=Objective(model, batches), "
                "from trainflat.objective, to the pruner, to a gate's begin() or to GateCallback."
            )
        return given if isinstance(given, Objective) else given(self.rows, self.batch_size)

    def values(self, inputs: ScoreInputs) -> Products:
        products = self.products(self.objective_from(inputs.objective), inputs.weights, inputs.masks)
        if not any(product.any() for product in products.values()):
            raise InputError(
                f"{type(self).__name__} finds every score 0: the loss does not depend on these weights. "
                "Give another objective, or prune by magnitude."
            )
        return products if self.signed else {name: product.abs() for name, product in products.items()}


@contextmanager
def _among(
    objective: Objective, weights: Mapping[str, Tensor], masks: Masks | None
) -> Iterator[tuple[Objective, dict[str, int]]]:
    """Yields the objective among the weights that ``masks`` keep, the others being 0, and each weight's index in it."""
    known = {id(w): k for k, w in enumerate(objective.weights)}
    for name, weight in weights.items():
        if id(weight) not in known:
            raise InputError(f"the objective does not move {name}. Name it among its parameters.")
    places = {name: known[id(weight)] for name, weight in weights.items()}
    with objective.measuring():
        if masks is None:
            yield objective, places
            return
        kept = {name: masks[name] for name in weights if name in masks}
        with torch.no_grad():
            for name, mask in kept.items():
                weights[name].mul_(mask.to(weights[name].device))
        yield under(objective, {objective.names[places[name]]: mask for name, mask in kept.items()}), places


def _products(weights: Mapping[str, Tensor], direction: list[Tensor], places: Mapping[str, int]) -> Products:
    found = {name: weight.detach() * direction[places[name]] for name, weight in weights.items()}
    for name, product in found.items():
        if not torch.isfinite(product).all():
            raise InputError(
                f"the pruning scores of {name} are not finite: neither is the loss, or its derivatives. "
                "Lower the learning rate, or prune by magnitude."
            )
    return found
