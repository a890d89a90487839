"""Takes the gradients of factors at the units of a model's layers that are 1, so that nothing is multiplied."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from trainflat.anatomy import Anatomy, Linear
from trainflat.core.errors import InputError

QUERY_KEY, VALUE_OUTPUT, UNIT = "query-key dimension", "value-output dimension", "feed-forward unit"


@dataclass(frozen=True)
class Place:
    """Names where the activations of one group of units are.

    Attributes:
        group: Name of the group, such as ``"feed-forward unit 3"``.
        module: Of a linear layer.
        start: First of the units among the last dimension of what the layer puts out, or reads.
        stop: Unit after the last one.
        reads: Whether the layer reads the units; if not, it puts them out.
    """

    group: str
    module: str
    start: int
    stop: int
    reads: bool


def group_name(kind: str, layer: int | None) -> str:
    """Returns the name of a layer's units of one kind, as :func:`structure_units` has it."""
    return kind if layer is None else f"{kind} {layer}"


def places_of(anatomy: Anatomy) -> list[Place]:
    """Lists where dimensions of queries, of the heads' outputs, and feed-forward units are; rotated queries are not."""
    found: list[Place] = []
    for layer in anatomy.layers:
        a, f = layer.attention, layer.feed_forward
        if a.heads:
            queries = () if anatomy.rotary else a.query
            found += [_place(group_name(QUERY_KEY, layer.number), one, one.start, one.stop) for one in queries]
            found.append(_place(group_name(VALUE_OUTPUT, layer.number), a.output, 0, a.output.inputs, reads=True))
        if f.output.inputs:
            found.append(_place(group_name(UNIT, layer.number), f.output, 0, f.output.inputs, reads=True))
    return list(dict.fromkeys(found))  # DeBERTa's queries may be one matrix for words and positions


def _place(group: str, linear: Linear, start: int, stop: int, *, reads: bool = False) -> Place:
    return Place(group, linear.weight.removesuffix(".weight"), start, stop, reads)


class UnitGradients:
    r"""Adds to ``factors[group].grad`` the gradient of the loss by a factor z at each unit's activation x, where z = 1.

    For a linear layer that reads x, :math:`\partial L / \partial z_i = \sum x_i\, \partial L / \partial x_i = \sum_j
    W_{ji}\, \partial L / \partial W_{ji}` over its column i; for one that puts x out, the same over its row i and the
    bias. So one number per unit comes with any backward pass, and a backward pass to the factors alone makes no
    gradient of any weight. Nothing is computed with factors and nothing is kept but what autograd keeps anyway; their
    own values are free for other use.

    Args:
        model: Whose modules are heard.
        places: Of the activations.
        factors: A leaf for each group [units]. Products are taken in its type.

    Attributes:
        on: Whether backward passes add to the factors' gradients.
    """

    def __init__(self, model: nn.Module, places: list[Place], factors: Mapping[str, Tensor]) -> None:
        self.model, self.places, self.factors, self.on = model, places, factors, True

    @contextmanager
    def standing(self) -> Iterator[None]:
        """Has the modules heard inside the block."""
        handles = [self._register(place) for place in self.places]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def of(self, term: Tensor) -> dict[str, Tensor]:
        """Returns the gradients of one term of a loss by group, and leaves its graph for the backward pass to come.

        Raises:
            InputError: the term's graph has no units.
        """
        self.on = True
        try:
            # A gradient of weights would cost more, and be added to those of other terms. Autocast is for forward
            # passes; losses are made inside of it.
            with torch.autocast(term.device.type, enabled=False):
                factors = [*self.factors.values()]
                found = torch.autograd.grad(term, factors, retain_graph=True, allow_unused=True)
        finally:
            self.on = False
        if all(grad is None for grad in found):
            raise InputError(
                "the gradient of one term of the loss reaches no unit of the model's layers. Where activations are "
                "checkpointed set use_reentrant to False, or term to null."
            )
        return {group: grad for group, grad in zip(self.factors, found, strict=True) if grad is not None}

    def _register(self, place: Place) -> RemovableHandle:
        module, hear = self.model.get_submodule(place.module), self._hear(place)
        if place.reads:
            return module.register_forward_pre_hook(lambda _, args: (hear(args[0]), *args[1:]))
        return module.register_forward_hook(lambda _, args, output: hear(output))

    def _hear(self, place: Place) -> Callable[[Tensor], Tensor]:
        def hear(x: Tensor) -> Tensor:
            if not torch.is_grad_enabled():
                return x
            heard: Tensor = _Heard.apply(x, self.factors[place.group], self, place)  # type: ignore[no-untyped-call]
            return heard

        return hear


class _Heard(torch.autograd.Function):
    """Passes activations on, and has their products with their gradients as the gradient of factors that are 1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factors: Tensor, owner: UnitGradients, place: Place) -> Tensor:
        ctx.save_for_backward(x)
        ctx.owner, ctx.place, ctx.kind = owner, place, factors.dtype
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        if not ctx.owner.on:
            return grad, None, None, None
        units = slice(ctx.place.start, ctx.place.stop)
        (x,) = ctx.saved_tensors
        products = x[..., units].to(ctx.kind) * grad[..., units].to(ctx.kind)
        return grad, products.flatten(0, -2).sum(0), None, None
