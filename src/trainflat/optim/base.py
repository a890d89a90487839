"""Defines the base class of flat optimizers: the passes of a step, displacing the weights, and restoring them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from trainflat.core.errors import InputError
from trainflat.core.foreach import foreach
from trainflat.optim.bases import each_once, make_base
from trainflat.optim.checks import radius
from trainflat.optim.exclusions import matches, refuse_idle_patterns
from trainflat.optim.holder import Holder
from trainflat.optim.memory import Memory, join, signed, split, unsigned
from trainflat.optim.moves import NOWHERE, Perturbation, advance
from trainflat.optim.wrapper import Wrapper, without_dynamo


class FlatOptimizer(Wrapper):
    """A base optimizer that steps with a gradient taken, or made, so that it leads to flat minima.

    A method says in :attr:`first_pass` and :attr:`second_pass` which passes the coming step takes, in
    :meth:`displacement` where the weights stand in the second one, and in :meth:`combine` which gradient the base
    optimizer gets. What it remembers between steps lies in :attr:`memory`.

    Args:
        params: Parameters, parameter groups or ``model.named_parameters()``.
        base_optimizer: Class of the optimizer that takes the step.
        rho: Radius of the displacement; a group's own key ``"rho"`` overrides it, 0 leaves the group where it is.
        exclude: Names of parameters that are not displaced: parts of the name, or patterns such as ``"*.bias"``.
        **base_options: Passed on to ``base_optimizer``.

    Attributes:
        held: Masks, by ``masks.hold(model).attach(optimizer)``: no pruned weight is displaced or revived.
        memory: Tensors by parameter and name, beside the base optimizer's state; part of ``state_dict()``.
        steps_taken: Steps of this optimizer so far; part of ``state_dict()``.
        total_steps: Steps of the whole training, where a method's options are shares of it; set it after construction.
        last_norm: Norm of the last displacement, 0-dim.

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

    shares_first_gradient: ClassVar[bool] = False
    """The first gradient goes into the step itself, or into what is remembered: all processes need the same one."""

    second_share: float = 1.0
    """Share of the rows that the second pass takes: those whose loss the displacement raised most."""

    changes_labels: ClassVar[bool] = False
    """Training learns what :meth:`prepare_labels` makes of the labels, so batches must have some."""

    loss_scale: float = 1.0
    """What this step's losses, and its gradients until the base optimizer's step, are multiplied by (float16)."""

    rho_only_displaces: ClassVar[bool] = True  # a group's rho does nothing else, so a gate may say what is displaced
    last_norm: Tensor
    _buffers: dict[Tensor, Tensor]

    def __init__(
        self,
        params: Iterable[Any],
        base_optimizer: Callable[..., Optimizer],
        *,
        rho: float = 0.0,
        exclude: Sequence[str] = (),
        **base_options: Any,
    ) -> None:
        rho = radius(rho)
        base = make_base(base_optimizer, params, base_options)
        base.defaults["rho"] = rho
        self.last_norm = torch.zeros(())
        self.held: Holder | None = None
        self.memory: Memory = {}
        self.steps_taken, self.total_steps = 0, None
        self._exclude = (exclude,) if isinstance(exclude, str) else tuple(exclude)
        self._excluded: set[Tensor] = set()
        self._origin: tuple[list[Tensor], list[Tensor]] | None = None  # not None inside perturbed()
        self._second_gradient = self._finished = False
        self.wrap(base)
        for group in base.param_groups:
            self._prepare(group)
        refuse_idle_patterns(self._exclude, base.param_groups)

    @classmethod
    def average_passes(cls, options: Mapping[str, Any]) -> float:
        """Counts the forward and backward passes over a batch per step with these constructor options, on average."""
        return 2.0

    def check_length(self, total: int) -> None:
        """Raises InputError for a training of so many steps in which the method would not act once."""

    @property
    def first_pass(self) -> bool:
        """Whether the coming step needs the gradient at the weights themselves."""
        return True

    @property
    def second_pass(self) -> bool:
        """Whether the coming step needs the gradient at displaced weights."""
        return True

    @torch.no_grad()
    def perturbation(self) -> Perturbation:
        """Computes the displacement for the second pass, from the gradients at hand and the memory."""
        return NOWHERE

    def prepare_labels(self, labels: Tensor, classes: int) -> Tensor:
        """Returns the labels [B] to train on in place of the batch's own; ``classes`` is 1 for regression."""
        return labels

    def combine(self) -> None:
        """Makes the gradient for the base optimizer, in place, from those of all passes of the step."""

    def remember(self) -> None:
        """Updates the memory after each step, while the gradient of the step is still there."""

    @without_dynamo
    def state_dict(self) -> dict[str, Any]:
        return signed(join(self.base.state_dict(), self.param_groups, self.memory, self.steps_taken), self.method)

    @without_dynamo
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads its own state dict or the base optimizer's; refuses one of another method with an InputError."""
        radii = [g["rho"] for g in self.param_groups]
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
        if self._origin is None:  # a gradient scaler leaves a step out without a word
            self._second_gradient = self._finished = False
        super().zero_grad(set_to_none)

    @contextmanager
    def perturbed(self) -> Iterator[None]:
        """Displaces the weights for the block, and restores them afterwards, bit for bit.

        Raises:
            RuntimeError: inside another such block, whose end would no longer know the way back; without a gradient.
        """
        if self._origin is not None:
            raise RuntimeError(f"{type(self).__name__}.perturbed() was entered inside its own block. Leave it first.")
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

        ``step()`` does it if nobody did. Call it before gradients are clipped, so that clipping sees the result.
        """
        with torch.no_grad():
            if self.held is not None:
                self.held.mask_gradients()
            self.combine()
        self._finished = True

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Takes the base optimizer's step with the gradient of this step's passes.

        Args:
            closure: Clears the gradients, computes the loss, calls ``backward()`` and returns the loss. With it the
                passes are run here; without it they must have come before.

        Returns:
            The loss of the earliest pass, that at the weights themselves if there is one; ``None`` without a closure.

        Raises:
            RuntimeError: without a second gradient where the step needs one, and inside a ``perturbed()`` block.
        """
        name = type(self).__name__
        if self._origin is not None:
            raise RuntimeError(f"{name}.step() was called inside its perturbed() block. Call it after the block.")
        loss = None
        if closure is not None:
            with torch.enable_grad():
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
        """Yields radius and trainable parameters of each displaced group, with or without a gradient."""
        return [
            (g["rho"], [p for p in g["params"] if p.requires_grad and p.numel() and p not in self._excluded])
            for g in self.param_groups
            if g["rho"] > 0
        ]

    def remembered(self, name: str, params: Sequence[Tensor]) -> list[Tensor]:
        """Returns the memory of these parameters under that name, zeros at first, in float32 at least."""
        for p in params:
            entries = self.memory.setdefault(p, {})
            if name not in entries:
                entries[name] = torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32))
        return [self.memory[p][name] for p in params]

    def perturbable(self) -> list[tuple[float, list[Tensor]]]:
        """Yields radius and parameters of each displaced group: those with a gradient that are not excluded.

        Raises:
            InputError: for a sparse gradient.
        """
        groups = [(rho, [p for p in params if p.grad is not None]) for rho, params in self.displaced()]
        if any(p.grad is not None and p.grad.layout != torch.strided for _, params in groups for p in params):
            raise InputError(f"{type(self).__name__} needs dense gradients. Build the embedding with sparse=False.")
        return [(rho, params) for rho, params in groups if params]

    def _prepare(self, group: dict[str, Any]) -> None:
        group["rho"] = radius(group.get("rho", self.defaults["rho"]))
        if not self._exclude:
            return
        if "param_names" not in group:
            raise InputError(f"exclude={self._exclude} needs names: pass model.named_parameters() as params.")
        named = zip(group["param_names"], group["params"], strict=True)
        self._excluded |= {p for name, p in named if any(matches(pattern, name) for pattern in self._exclude)}

    @torch.no_grad()
    def _displace(self) -> None:
        if self.held is not None:
            self.held.mask_gradients()
        moves, self.last_norm = self.perturbation()
        params = [p for move in moves for p in move.params]
        if not params:
            return
        # Copied first: an interrupt finds untouched weights or the way back. Memory touched before costs a CPU less.
        self._buffers = {p: self._buffer(p) for p in params}
        kept = list(self._buffers.values())
        foreach("copy_", kept, params)
        self._origin = (params, kept)
        for move in moves:
            advance(move)
        if self.held is not None:  # a displacement that remembers may know nothing of the masks
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
