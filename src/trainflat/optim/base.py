"""What every optimizer that takes its gradient at displaced weights shares."""

import math
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from trainflat.errors import InputError

PerturbPreHook = Callable[[Any], None]

_STATE_DICT_HOOKS = tuple(
    f"_optimizer_{what}_{when}_hooks" for what in ("state_dict", "load_state_dict") for when in ("pre", "post")
)
# Not copied or pickled: scratch memory and, as in torch, hooks and the step that a scheduler patched.
_TRANSIENT = {
    *_STATE_DICT_HOOKS,
    "_optimizer_step_pre_hooks",
    "_optimizer_step_post_hooks",
    "_perturb_pre_hooks",
    "_buffers",
    "step",
}


class Move(NamedTuple):
    """``params[i]`` goes to ``params[i] + scale * directions[i]``; the directions, often gradients, are only read."""

    params: list[Tensor]
    directions: list[Tensor]
    scale: float | Tensor


class Displacement(NamedTuple):
    """Where the weights go for the second pass: one move per parameter group, and the norm of all together (0-dim)."""

    moves: list[Move]
    norm: Tensor


class TwoPassOptimizer(Optimizer):
    """A base optimizer that steps with a gradient taken at displaced weights.

    A method says in :meth:`displacement` where the weights go. Parameter groups, state, defaults, ``state_dict`` and
    ``load_state_dict`` are those of :attr:`base`, never copies, so that schedulers, clipping, gradient scalers
    and checkpoints see one optimizer. State-dict hooks are therefore called with ``base``.

    Args:
        params: Parameters, parameter groups or ``model.named_parameters()``.
        base_optimizer: Class of the optimizer that takes the step.
        rho: Radius of the displacement; a group's own key ``"rho"`` overrides it, 0 leaves the group where it is.
        exclude: Names of parameters that are not displaced: parts of the name, or patterns such as ``"*.bias"``.
        **base_options: Passed on to ``base_optimizer``.

    Raises:
        InputError: for a negative radius, for ``exclude`` without names or with a pattern that no name matches, and for
            a base optimizer that has an option ``rho`` of its own (Adadelta).
    """

    base: Optimizer
    passes_per_step: int = 2
    last_norm: Tensor
    _perturb_pre_hooks: OrderedDict[int, PerturbPreHook]
    _buffers: dict[Tensor, Tensor]

    def __init__(
        self,
        params: Iterable[Any],
        base_optimizer: Callable[..., Optimizer],
        *,
        rho: float,
        exclude: Sequence[str] = (),
        **base_options: Any,
    ) -> None:
        base = base_optimizer(params, **base_options)
        if "rho" in base.defaults:
            raise InputError(f"{type(base).__name__} has an option rho of its own; choose another base optimizer.")
        base.defaults["rho"] = _radius(rho)
        self.last_norm = torch.zeros(())
        self._exclude = (exclude,) if isinstance(exclude, str) else tuple(exclude)
        self._excluded: set[Tensor] = set()
        self._origin: tuple[list[Tensor], list[Tensor]] | None = None  # not None inside perturbed()
        self._second_gradient = False
        # Optimizer.__init__ would make groups and a state of its own; __setstate__ makes the rest, hooks and profiling.
        self.__setstate__({"base": base})
        for group in base.param_groups:
            self._prepare(group)
        _refuse_idle_patterns(self._exclude, base.param_groups)

    @abstractmethod
    def displacement(self) -> Displacement:
        """Where the weights go for the second pass, from the gradients at hand and what the method remembers."""

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

    @torch._disable_dynamo
    def state_dict(self) -> dict[str, Any]:
        return self.base.state_dict()

    @torch._disable_dynamo
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads what ``state_dict`` returned; that of the base optimizer alone will do, the radius then stays."""
        radii = [group["rho"] for group in self.param_groups]
        self.base.load_state_dict(state_dict)
        for group, rho in zip(self.param_groups, radii, strict=True):
            group.setdefault("rho", rho)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        self.base.add_param_group(param_group)
        self._prepare(self.param_groups[-1])

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key not in _TRANSIENT}

    def __setstate__(self, state: dict[str, Any]) -> None:
        base = state.get("base") or self.base
        shared = {name: getattr(base, name) for name in _STATE_DICT_HOOKS}
        self.__dict__.update(shared | {"base": base, "_buffers": {}, "_perturb_pre_hooks": OrderedDict()})
        super().__setstate__(state)

    def register_perturb_pre_hook(self, hook: Callable[[Self], None]) -> RemovableHandle:
        """Has ``hook(optimizer)`` called, without autograd, before each displacement is computed.

        What the hook does to the gradients shapes the displacement: a mask multiplied in keeps pruned weights at 0.
        """
        handle = RemovableHandle(self._perturb_pre_hooks)
        self._perturb_pre_hooks[handle.id] = hook
        return handle

    @contextmanager
    def perturbed(self) -> Iterator[None]:
        """Inside the block the weights stand displaced; after it they are what they were, bit for bit.

        Raises:
            RuntimeError: inside another such block, whose end would no longer know the way back.
        """
        if self._origin is not None:
            raise RuntimeError(
                f"{type(self).__name__}.perturbed() was entered inside its own block. Leave the first block before."
            )
        self._second_gradient = False
        self._origin = ([], [])
        try:
            self._displace()
            yield
        finally:
            self._restore()
        self._second_gradient = True

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Takes the base optimizer's step with the gradient of the second pass.

        Args:
            closure: Clears the gradients, computes the loss, calls ``backward()`` and returns the loss. With it both
                passes are run here; without it a :meth:`perturbed` block must have come before.

        Returns:
            The loss of the first pass, at the weights themselves; ``None`` without a closure.

        Raises:
            RuntimeError: without a second gradient, and inside a ``perturbed()`` block.
        """
        name = type(self).__name__
        if self._origin is not None:
            raise RuntimeError(
                f"{name}.step() was called inside `with optimizer.perturbed():`. Call it after the block."
            )
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
                with self.perturbed():
                    closure()
        elif not self._second_gradient:
            raise RuntimeError(
                f"{name}.step() was called before a second gradient was taken. Run the forward and backward pass again "
                "inside `with optimizer.perturbed():`, or pass a closure."
            )
        self._second_gradient = False
        self.base.step()
        return loss

    def perturbable(self) -> list[tuple[float, list[Tensor]]]:
        """Radius and parameters of each group that is displaced: those with a gradient that are not excluded.

        Raises:
            InputError: for a sparse gradient.
        """
        groups = []
        for group in self.param_groups:
            if group["rho"] > 0:
                params = [p for p in group["params"] if p.grad is not None and p.numel() and p not in self._excluded]
                groups.append((group["rho"], params))
        if any(p.grad is not None and p.grad.layout != torch.strided for _, params in groups for p in params):
            raise InputError(f"{type(self).__name__} needs dense gradients. Build the embedding with sparse=False.")
        return [(rho, params) for rho, params in groups if params]

    def _prepare(self, group: dict[str, Any]) -> None:
        group["rho"] = _radius(group.get("rho", self.defaults["rho"]))
        if not self._exclude:
            return
        if "param_names" not in group:
            raise InputError(f"exclude={self._exclude} needs names: pass model.named_parameters() as params.")
        named = zip(group["param_names"], group["params"], strict=True)
        self._excluded |= {p for name, p in named if any(_matches(pattern, name) for pattern in self._exclude)}

    @torch.no_grad()
    def _displace(self) -> None:
        for hook in list(self._perturb_pre_hooks.values()):
            hook(self)
        moves, self.last_norm = self.displacement()
        params = [p for move in moves for p in move.params]
        if not params:
            return
        # Copied before anything moves: an interrupt at any point finds either untouched weights or the way back. The
        # buffers live on between steps because first-touched memory costs a CPU more than the copy itself.
        self._buffers = {p: self._buffer(p) for p in params}
        kept = list(self._buffers.values())
        torch._foreach_copy_(kept, params)
        self._origin = (params, kept)
        for move in moves:
            _advance(move)

    def _buffer(self, p: Tensor) -> Tensor:
        old = self._buffers.get(p)
        fits = old is not None and (old.shape, old.dtype, old.device) == (p.shape, p.dtype, p.device)
        return old if old is not None and fits else torch.empty_like(p, requires_grad=False)

    @torch.no_grad()
    def _restore(self) -> None:
        params, kept = self._origin or ([], [])
        if params:
            torch._foreach_copy_(params, kept)
        self._origin = None


def _advance(move: Move) -> None:
    if isinstance(move.scale, float):
        torch._foreach_add_(move.params, move.directions, alpha=move.scale)
        return
    steps = torch._foreach_mul(move.directions, move.scale)
    for step in steps:  # a scale of 0 times an overflowed gradient is NaN, and must move nothing
        step.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
    torch._foreach_add_(move.params, list(steps))


def _radius(rho: Any) -> float:
    if not isinstance(rho, int | float) or not 0 <= rho < math.inf:
        raise InputError(f"rho is the radius of the displacement, a number >= 0, got {rho!r}.")
    return float(rho)


def _matches(pattern: str, name: str) -> bool:
    return pattern in name or fnmatchcase(name, pattern)


def _refuse_idle_patterns(patterns: Iterable[str], groups: list[dict[str, Any]]) -> None:
    names = [name for group in groups for name in group.get("param_names", ())]
    for pattern in patterns:
        if not any(_matches(pattern, name) for name in names):
            raise InputError(f"exclude={pattern!r} matches no parameter. Names look like {names[0]!r}, {names[-1]!r}.")
