"""Keeps the zeros of fixed masks through training, at next to no cost."""

from collections.abc import Callable, Mapping
from typing import Any, Self

import torch
from torch import Tensor
from torch.optim import Optimizer

from trainflat.core.errors import InputError
from trainflat.core.foreach import foreach
from trainflat.core.formatting import plural


class MaskEnforcer:
    """Multiplies weights and gradients by their masks, by one call for all of them.

    In the dtype of the weights, because a product of different types costs twice the time; the memory is that of the
    weights. When the model moves to another device or dtype the masks follow.

    Args:
        weights: The masked weights by name, as :meth:`trainflat.pruning.Masks.parameters` finds them in a model.
        masks: For each of these names True where a weight stays.

    Example:
        >>> from torch import nn
        >>> from trainflat.pruning import Masks
        >>> model = nn.Linear(4, 4)
        >>> masks = Masks({"weight": torch.eye(4).bool()})
        >>> masks.apply_(model)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
        >>> with masks.hold(model).attach(optimizer):
        ...     model(torch.ones(2, 4)).sum().backward()
        ...     optimizer.step()
        >>> int((model.weight != 0).sum())
        4
    """

    def __init__(self, weights: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> None:
        self._names, self._weights = list(weights), list(weights.values())
        self._factors: list[Tensor] = [masks[name].to(w.device, w.dtype) for name, w in weights.items()]

    def replace(self, masks: Mapping[str, Tensor]) -> None:
        """Holds other masks of the same weights from now on, in the same memory; no weight is changed."""
        for name, factor in zip(self._names, self._factors, strict=True):
            factor.copy_(masks[name])

    @torch.no_grad()
    def mask_gradients(self) -> None:
        """Multiplies the gradients that are there by their masks, in place."""
        self._follow()
        pairs = [(w.grad, m) for w, m in zip(self._weights, self._factors, strict=True) if w.grad is not None]
        if pairs:
            foreach("mul_", [grad for grad, _ in pairs], [factor for _, factor in pairs])

    @torch.no_grad()
    def mask_weights(self) -> None:
        """Multiplies the weights by their masks, in place."""
        self._follow()
        if self._weights:
            foreach("mul_", self._weights, tuple(self._factors))

    def factor(self, weight: Tensor) -> Tensor | None:
        """Returns 1 where a weight is kept and 0 where it is pruned; None for a weight without a mask."""
        self._follow()
        return next((f for w, f in zip(self._weights, self._factors, strict=True) if w is weight), None)

    def attach(self, optimizer: Optimizer) -> "Attached":
        """Have the optimizer keep the zeros from now on: gradients are masked before its step, weights after it.

        Momentum and other state of pruned weights is set to 0 first. Of an optimizer that perturbs the weights
        (:class:`trainflat.optim.SAM`) the gradients are masked before the perturbation as well.

        Returns:
            A handle: ``remove()``, or the end of a ``with`` block, ends it.

        Raises:
            InputError: none of the weights is the optimizer's, so it trains another model.
        """
        trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
        if self._weights and not any(id(weight) in trained for weight in self._weights):
            raise InputError(
                f"the optimizer trains none of {plural(len(self._weights), 'masked weight')}, such as "
                f"{self._names[0]}, so the masks are held on another model. Hold them on the one that it trains."
            )
        return Attached(self, optimizer)

    @torch.no_grad()
    def clear_state(self, optimizer: Optimizer) -> None:
        """Sets the optimizer's state of pruned weights to 0, so that no momentum moves them."""
        self._follow()
        for weight, factor in zip(self._weights, self._factors, strict=True):
            remembered = getattr(optimizer, "memory", {}).get(weight, {})
            for value in [*optimizer.state.get(weight, {}).values(), *remembered.values()]:
                if isinstance(value, Tensor) and value.shape == weight.shape:
                    value.masked_fill_(factor.to(value.device) == 0, 0)

    def _follow(self) -> None:
        for i, weight in enumerate(self._weights):
            if self._factors[i].device != weight.device or self._factors[i].dtype != weight.dtype:
                self._factors[i] = self._factors[i].to(weight.device, weight.dtype)


class Attached:
    """Registers masks with an optimizer until it is removed."""

    def __init__(self, held: MaskEnforcer, optimizer: Optimizer) -> None:
        held.clear_state(optimizer)
        self._held, self._optimizer = held, optimizer
        outer = self._others()
        self._found: Any = outer[-1]._found if outer else getattr(optimizer, "held", None)  # before any was attached
        self._handles = [
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(lambda *_: held.mask_weights()),
        ]
        if hasattr(optimizer, "held"):  # a flat optimizer, which asks for masks before it perturbs
            optimizer.held = held

    def remove(self) -> None:
        """Leave the optimizer as it would be without these masks; others that are attached stay, in any order."""
        for handle in self._handles:
            handle.remove()
        if hasattr(self._optimizer, "held"):
            left = self._others()
            self._optimizer.held = left[-1]._held if left else self._found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def _others(self) -> list["Attached"]:
        """Returns what else is attached to the optimizer now, the latest last."""
        hooks = getattr(self._optimizer, "_optimizer_step_pre_hooks", {}).values()
        attached = [getattr(hook, "__self__", None) for hook in hooks]
        return [one for one in attached if isinstance(one, Attached) and one is not self]

    def _before(self, _: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        """Mask the gradients at hand, and those that a closure will make."""
        self._held.mask_gradients()
        if callable(kwargs.get("closure")):
            return args, kwargs | {"closure": self._masking(kwargs["closure"])}
        if len(args) > 1 and callable(args[1]):
            return (args[0], self._masking(args[1]), *args[2:]), kwargs
        return args, kwargs

    def _masking(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        def masked() -> Any:
            loss = closure()
            self._held.mask_gradients()
            return loss

        return masked
