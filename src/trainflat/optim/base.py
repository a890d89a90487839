"""Defines the base class of flat optimizers: the passes of a step, perturbing the weights, and restoring them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from trainflat.core.configurable import Configurable
from trainflat.core.errors import InputError
from trainflat.core.foreach import foreach
from trainflat.optim.bases import PATTERNS, RADIUS, Radius, each_once, make_base, matches, refuse_idle_patterns
from trainflat.optim.memory import Memory, join, signed, split, unsigned
from trainflat.optim.perturbation import NO_PERTURBATION, Perturbation, apply_move
from trainflat.optim.vectors import Gradients
from trainflat.optim.wrapper import Wrapper, without_dynamo


class Masks(Protocol):
    """Keeps pruned weights at zero, as :class:`trainflat.pruning.MaskEnforcer` does.

    A protocol, because pruning lies on the same floor and cannot be imported.
    """

    def mask_gradients(self) -> None:
        """Sets the gradients of pruned weights to zero."""

    def mask_weights(self) -> None:
        """Sets the pruned weights to zero."""

    def factor(self, weight: Tensor) -> Tensor | None:
        """Returns 1 where a weight is kept and 0 where it is pruned; None without a mask."""


class FlatOptimizer(Configurable, Wrapper):
    """Base of the optimizers whose gradient is taken, or changed, so that the base optimizer finds flat minima.

    A method says in :attr:`first_pass` and :attr:`second_pass` which forward and backward passes the coming step takes,
    in :meth:`perturbation` where the weights are in the second pass, and in :meth:`combine` which gradient the base
    optimizer steps with. State that it keeps between steps is in :attr:`memory`.

    Args:
        params: Parameters, parameter groups or ``model.named_parameters()``, as for any torch optimizer.
        base_optimizer: Class of the optimizer that takes the step.
        rho: Radius of the perturbation; a group's own key ``"rho"`` overrides it, 0 leaves the group unperturbed.
        exclude: Parameters not to perturb and not in the norm: parts of their names, or patterns such as ``"*.bias"``.
        **base_options: Passed on to ``base_optimizer``: ``lr``, ``weight_decay``, ...

    Attributes:
        held: Masks, set by ``masks.hold(model).attach(optimizer)``: no pruned weight is perturbed or revived.
        memory: Tensors by parameter and name, beside the base optimizer's state; part of ``state_dict()``.
        steps_taken: Steps of this optimizer so far; part of ``state_dict()``.
        total_steps: Steps of the whole training, for options that are shares of it; set it after construction.
        last_norm: L2 norm of the last perturbation (SAM: in its own p-norm), 0-dim.

    Raises:
        InputError: for a radius that is no number >= 0, ``exclude`` without names or with a pattern that matches none,
            a parameter given twice, and a base that is no class or unfit (LBFGS, SparseAdam, Adadelta).

    Example:
        The loop that every flat optimizer understands, whichever passes its step takes::

            if optimizer.first_pass:
                optimizer.zero_grad()
                loss(model).backward()
            if optimizer.second_pass:
                with optimizer.perturbed():
                    optimizer.zero_grad()
                    loss(model).backward()
            optimizer.step()
    """

    # As a rule data parallel reduces the second gradient alone: each process perturbs by its own rows (m-sharpness).
    shares_first_gradient: ClassVar[bool] = False
    """The first gradient enters the step or the memory, so all processes need the same (reduced) one."""

    changes_labels: ClassVar[bool] = False
    """Training uses the labels that :meth:`prepare_labels` returns, so batches must have labels."""

    loss_scale: float = 1.0
    """Factor of this step's losses and gradients until the base optimizer's step (a float16 GradScaler's scale)."""

    # Gates that train scores beside the weights choose by "rho" which of them SAM perturbs. Where a method's rho does
    # more than that (a penalty, a pruned share), such a choice would silently turn the method off, and is refused.
    rho_only_displaces: ClassVar[bool] = True
    last_norm: Tensor
    _buffers: dict[Tensor, Tensor]

    rho: Radius = 0.05
    exclude: Annotated[Sequence[str] | None, PATTERNS] = ()
    radius_option: ClassVar[str] = "rho"
    """The option that a group's key ``"rho"`` overrides."""

    def __init__(
        self,
        params: Iterable[Any],
        base_optimizer: Callable[..., Optimizer] = torch.optim.AdamW,
        *args: Any,
        **base_options: Any,
    ) -> None:
        base = make_base(base_optimizer, params, self.take_options(args, base_options))
        base.defaults["rho"] = getattr(self, self.radius_option)
        self.last_norm = torch.zeros(())
        self._first: Gradients = {}  # of the current step, where a method combines them with the second ones
        self.held: Masks | None = None
        self.memory: Memory = {}
        self.steps_taken, self.total_steps = 0, None
        self._excluded: set[Tensor] = set()
        self._origin: tuple[list[Tensor], list[Tensor]] | None = None  # not None inside perturbed()
        self._second_gradient = self._finished = False
        self.wrap(base)
        for group in base.param_groups:
            self._prepare(group)
        refuse_idle_patterns(self.exclude or (), base.param_groups)

    @classmethod
    def average_passes(cls, options: Mapping[str, Any]) -> float:
        """Counts the forward and backward passes over a batch per step with these constructor options, on average."""
        return 2.0

    @classmethod
    def check_base(cls, base: Optimizer, options: Mapping[str, Any]) -> None:
        """Raises InputError for a base optimizer that the method cannot be around with these options."""

    @classmethod
    def check_length(cls, options: Mapping[str, Any], total: int) -> None:
        """Raises InputError for a training of ``total`` steps in none of which the method would act."""

    @classmethod
    def second_share_of(cls, options: Mapping[str, Any]) -> float:
        """What :attr:`second_share` is with these options."""
        return 1.0

    @property
    def second_share(self) -> float:
        """Share of the rows in the second pass: those whose loss the perturbation raised most (ESAM)."""
        return self.second_share_of(vars(self))

    @property
    def first_pass(self) -> bool:
        """Whether the coming step needs the gradient at the weights themselves."""
        return True

    @property
    def second_pass(self) -> bool:
        """Whether the coming step needs the gradient at perturbed weights."""
        return True

    @torch.no_grad()
    def perturbation(self) -> Perturbation:
        """Computes the perturbation for the second pass from the current gradients and the memory."""
        return NO_PERTURBATION

    def prepare_labels(self, labels: Tensor, classes: int) -> Tensor:
        """Returns the labels [B] to train on in place of the batch's own; ``classes`` is 1 for regression."""
        return labels

    def combine(self) -> None:
        """Computes the gradient that the base optimizer steps with, in place, from the gradients of all passes."""

    def remember(self) -> None:
        """Updates the memory after each step, while the step's gradients are still in ``.grad``."""

    @without_dynamo
    def state_dict(self) -> dict[str, Any]:
        return signed(join(self.base.state_dict(), self.param_groups, self.memory, self.steps_taken), self.method)

    @without_dynamo
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads its own state dict or the base optimizer's.

        Raises:
            InputError: it is the state dict of another method.
        """
        radii = [g["rho"] for g in self.param_groups]  # torch replaces the groups; a plain base's have no "rho"
        remembered = split(unsigned(state_dict, self.method, type(self.base).__name__), self.param_groups)
        self.base.load_state_dict(remembered.base)
        self.memory, self.steps_taken = remembered.memory, remembered.steps
        for group, rho in zip(self.param_groups, radii, strict=True):
            group.setdefault("rho", rho)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        with each_once():
            self.base.add_param_group(param_group)
        self._prepare(self.param_groups[-1])

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clears the gradients; outside :meth:`perturbed` this begins a new step, also after one that was not taken."""
        if self._origin is None:  # GradScaler skips step() after an overflow, so step() cannot be what resets these
            self._second_gradient = self._finished = False
        super().zero_grad(set_to_none)

    @contextmanager
    def perturbed(self) -> Iterator[None]:
        """Perturbs the weights for the block, and restores them afterwards, bit for bit.

        The weights are copied and copied back, not moved back: ``(w + e) - e`` is not ``w`` in floating point.

        Raises:
            RuntimeError: it is entered inside its own block, or without a gradient.
        """
        if self._origin is not None:
            raise RuntimeError(f"{type(self).__name__}.perturbed() was entered inside its own block. Leave it first.")
        # Without this a forgotten backward() would train on, silently, as the base optimizer alone.
        self.require_gradients(self.displaced() if self.first_pass else [])
        self._second_gradient = self._finished = False
        self._origin = ([], [])
        try:
            self._displace()
            yield
        finally:
            self._restore()
        self._second_gradient = True

    def finish_gradients(self) -> None:
        """Combines the gradients of this step's passes into the one that the step takes.

        ``step()`` calls it if the loop did not. Call it before clipping, so that the combined gradient is clipped.
        """
        with torch.no_grad():
            if self.held is not None:
                self.held.mask_gradients()
            self.combine()
        self._finished = True

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Takes the base optimizer's step with the gradient of this step's passes.

        Args:
            closure: Clears the gradients, computes the loss, calls ``backward()`` and returns the loss. It is called
                once per pass; without it the loop has to run the passes before ``step()``.

        Returns:
            The loss of the first pass that the step takes, at the unperturbed weights if it takes one there; ``None``
            without a closure.

        Raises:
            RuntimeError: without a second gradient where the step needs one, and inside a ``perturbed()`` block.
        """
        name = type(self).__name__
        if self._origin is not None:
            raise RuntimeError(f"{name}.step() was called inside its perturbed() block. Call it after the block.")
        loss = None
        if closure is not None:
            with torch.enable_grad():  # as torch's optimizers do: the caller may be inside no_grad()
                loss = self._run(closure)
        elif self.second_pass and not self._second_gradient:
            raise RuntimeError(
                f"{name}.step() was called before a second gradient was taken. Run the forward and backward pass again "
                "inside `with optimizer.perturbed():`, or pass a closure."
            )
        if not self._finished:
            self.finish_gradients()
        self._second_gradient = self._finished = False
        self.base_step()
        with torch.no_grad():
            self.remember()
        self.steps_taken += 1
        return loss

    def base_step(self) -> None:
        """Takes the base optimizer's step; methods override it to skip or surround it."""
        self.base.step()

    def _run(self, closure: Callable[[], Any]) -> Any:
        losses = [closure()] if self.first_pass else []
        if self.second_pass:
            with self.perturbed():
                losses.append(closure())
        return losses[0]

    def displaced(self) -> list[tuple[float, list[Tensor]]]:
        """Returns radius and trainable parameters of each group with a radius, with or without a gradient."""
        return [
            (g["rho"], [p for p in g["params"] if p.requires_grad and p.numel() and p not in self._excluded])
            for g in self.param_groups
            if g["rho"] > 0
        ]

    def remembered(self, name: str, params: Sequence[Tensor]) -> list[Tensor]:
        """Returns the memory's tensor ``name`` of each parameter, created as zeros in float32 at least."""
        for p in params:
            entries = self.memory.setdefault(p, {})
            if name not in entries:
                entries[name] = torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32))
        return [self.memory[p][name] for p in params]

    def perturbable(self) -> list[tuple[float, list[Tensor]]]:
        """Returns radius and parameters of each group with a radius: those with a gradient that are not excluded.

        Raises:
            InputError: for a sparse gradient.
        """
        groups = [(rho, [p for p in params if p.grad is not None]) for rho, params in self.displaced()]
        if any(p.grad is not None and p.grad.layout != torch.strided for _, params in groups for p in params):
            raise InputError(f"{type(self).__name__} needs dense gradients. Build the embedding with sparse=False.")
        return [(rho, params) for rho, params in groups if params]

    def _prepare(self, group: dict[str, Any]) -> None:
        group["rho"] = RADIUS.read("rho", group.get("rho", self.defaults["rho"]))
        if not self.exclude:
            return
        if "param_names" not in group:
            raise InputError(f"exclude={self.exclude} needs names: pass model.named_parameters() as params.")
        named = zip(group["param_names"], group["params"], strict=True)
        self._excluded |= {p for name, p in named if any(matches(pattern, name) for pattern in self.exclude)}

    @torch.no_grad()
    def _displace(self) -> None:
        if self.held is not None:
            self.held.mask_gradients()
        moves, self.last_norm = self.perturbation()
        params = [p for move in moves for p in move.params]
        if not params:
            return
        # Copied before anything moves, so that an interrupt at any line finds either untouched weights or their copy.
        # The buffers are kept from step to step: on a CPU the page faults of fresh memory cost more than the copy.
        self._buffers = {p: self._buffer(p) for p in params}
        kept = list(self._buffers.values())
        foreach("copy_", kept, params)
        self._origin = (params, kept)
        for move in moves:
            apply_move(move)
        if self.held is not None:  # a momentum or mean from before the masks still points along pruned weights
            self.held.mask_weights()

    def _buffer(self, p: Tensor) -> Tensor:
        old = self._buffers.get(p)
        fits = old is not None and (old.shape, old.dtype, old.device) == (p.shape, p.dtype, p.device)
        return old if old is not None and fits else torch.empty_like(p, requires_grad=False)

    @torch.no_grad()
    def _restore(self) -> None:
        params, kept = self._origin or ([], [])
        if params:
            foreach("copy_", params, kept)
        self._origin = None
