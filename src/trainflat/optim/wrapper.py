"""Wraps a torch optimizer: parameter groups, state, defaults and hooks are shared with the inner one."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.optim import Optimizer

Function = TypeVar("Function", bound=Callable[..., Any])


def without_dynamo(function: Function) -> Function:
    """Keeps a function out of ``torch.compile``. Dynamo, slow to import, is imported at the first call."""
    kept_out: Function = getattr(torch, "_disable_dynamo", torch.compiler.disable)(function)
    return kept_out


_STATE_DICT_HOOKS = tuple(
    f"_optimizer_{what}_{when}_hooks" for what in ("state_dict", "load_state_dict") for when in ("pre", "post")
)
# Not copied or pickled: scratch memory and, as in torch, hooks and the step that a scheduler patched.
_TRANSIENT = {
    *_STATE_DICT_HOOKS,
    "_optimizer_step_pre_hooks",
    "_optimizer_step_post_hooks",
    "_buffers",
    "_zeroed",
    "step",
}


class Wrapper(Optimizer):
    """Shares parameter groups, state, defaults and hooks with :attr:`base`, never copies of them.

    Schedulers, clipping, gradient scalers and checkpoints thus see one optimizer; with copies a scheduler would set a
    learning rate that the base never reads. State-dict hooks are called with ``base``.
    """

    base: Optimizer
    _zeroed: dict[Tensor, int | None]  # gradients that zero_grad(set_to_none=False) set to 0, and their versions then

    def wrap(self, base: Optimizer) -> None:
        """Replaces ``Optimizer.__init__``, which would create groups and a state of its own."""
        self.__setstate__({"base": base})  # torch's own adds the hooks and the profiled step()

    @property
    def method(self) -> str:
        """The name of the method and its base in state dicts and messages, such as ``SAM over AdamW``."""
        return f"{type(self).__name__} over {type(self.base).__name__}"

    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)
        grads = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        self._zeroed = {grad: getattr(grad, "_version", None) for grad in grads}

    def _untouched(self, grad: Tensor) -> bool:
        """Returns whether a gradient is unchanged since it was set to 0, without comparing its entries."""
        version = self._zeroed.get(grad)
        return version is not None and version == getattr(grad, "_version", None)

    def require_gradients(self, groups: Sequence[tuple[float, list[Tensor]]]) -> None:
        """Raises RuntimeError unless there was a backward pass since ``zero_grad()``, whatever gradient it gave."""
        params = [p for _, group in groups for p in group]
        grads = [p.grad for p in params if p.grad is not None]
        if params and all(self._untouched(grad) for grad in grads):
            raise RuntimeError(
                f"{type(self).__name__}.perturbed() was entered without a gradient, and would perturb nothing. Call "
                "backward() first, and zero_grad() before that or inside the block."
            )

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self.base.param_groups

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        self.base.param_groups = groups

    @property
    def state(self) -> Any:
        return self.base.state

    @state.setter
    def state(self, state: Any) -> None:
        self.base.state = state

    @property
    def defaults(self) -> dict[str, Any]:
        return self.base.defaults

    @defaults.setter
    def defaults(self, defaults: dict[str, Any]) -> None:
        self.base.defaults = defaults

    # In torch a pickled optimizer is its __dict__; here groups and state come back through ``base``.
    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key not in _TRANSIENT}

    def __setstate__(self, state: dict[str, Any]) -> None:
        base = state.get("base") or self.base
        shared = {name: getattr(base, name) for name in _STATE_DICT_HOOKS if hasattr(base, name)}
        self.__dict__.update(shared | {"base": base, "_buffers": {}, "_zeroed": {}})
        super().__setstate__(state)
