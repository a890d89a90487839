"""Runs the forward and backward passes of an optimizer step, in the order that a flat optimizer asks for."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.optim import Optimizer
from transformers import Trainer

from trainflat.anatomy.heads import check_row_losses, classes_of, row_losses
from trainflat.core.errors import InputError
from trainflat.optim import FlatOptimizer
from trainflat.training.features import Features
from trainflat.training.features.base import without_added
from trainflat.training.shares import Size, Sizes, joint, over_processes
from trainflat.training.window import Replay, Window, gradients_set_aside

# A forward pass without a backward pass, in passes: backward takes about twice the time of forward.
_FORWARD_ALONE = 1 / 3
OnePass = Callable[[nn.Module, Replay, Size], Tensor]


class StepRunner:
    """Runs and counts forward and backward passes over whole accumulation windows.

    Args:
        trainer: Owns model, optimizer, accelerator and arguments.
        features: Their contexts are around all passes.
        one_pass: Runs a forward and backward pass over a micro-batch of a window of some size; returns its share of
            the loss.

    Attributes:
        window: The micro-batches of the current step.
        count: Passes over a whole window since step 0.
    """

    def __init__(self, trainer: Trainer, features: Features, one_pass: OnePass) -> None:
        self.trainer, self.features, self._one_pass = trainer, features, one_pass
        self.window = Window()
        self.count: float = 0
        self._open: ExitStack | None = None  # the features' contexts around the undisplaced passes of a window
        self._perturbation: list[tuple[Tensor, Tensor]] = []  # (norm of the displacement, loss gap) since the last log
        self._terms: dict[str, Tensor] = {}  # sums of loss terms over the windows since the last log
        self._windows = 0  # how many these are
        self._again = False  # whether the current pass repeats rows that a pass at the weights has seen
        self._rows_known = False  # whether losses of rows were compared with the model's own loss
        self._row_losses = torch.zeros(())  # of the latest pass, where rows are weighed

    @property
    def flat(self) -> FlatOptimizer | None:
        """Returns the optimizer below accelerate's wrapper, if it is a flat one."""
        optimizer = getattr(self.trainer.optimizer, "optimizer", self.trainer.optimizer)
        return optimizer if isinstance(optimizer, FlatOptimizer) else None

    @property
    def loss_scale(self) -> float:
        """Returns the factor of a GradScaler; 1 without one."""
        scaler = self.trainer.accelerator.scaler
        return 1.0 if scaler is None else float(scaler.get_scale())

    def begin(self, batches: Sequence[Any]) -> None:
        """Begins a step over these micro-batches."""
        sizes = [self._size_of(batch) for batch in batches]
        self._windows += 1
        self.window = Window(sizes, self._everywhere(joint(sizes)))
        flat = self.flat
        if flat is not None:
            flat.total_steps = self.trainer.state.max_steps
            flat.loss_scale = self.loss_scale

    @property
    def _size_of(self) -> Sizes:
        return Sizes.of(self.trainer.model, self.trainer.label_names)

    def _everywhere(self, size: Size) -> Size:
        args = self.trainer.args
        shared = args.world_size > 1 and args.average_tokens_across_devices
        return over_processes(size, args.device) if shared else size

    def micro_batch(self, model: nn.Module, inputs: dict[str, Any]) -> Tensor:
        """Runs the passes that can be run now that this micro-batch is here; returns its share of the window's loss.

        After an exception the features' contexts are left, so that the model holds what it held before the step.
        """
        try:
            return self._run(model, inputs)
        except BaseException as error:
            self.abandon(error)
            raise

    def abandon(self, error: BaseException) -> None:
        """Leaves the features' contexts because of an exception."""
        if self._open is not None:
            stack, self._open = self._open, None
            stack.__exit__(type(error), error, error.__traceback__)

    def _run(self, model: nn.Module, inputs: dict[str, Any]) -> Tensor:
        flat, device = self.flat, self.trainer.args.device
        if flat is None:
            batch = self.window.add(inputs, device)
            with self._undisplaced():
                loss = self._pass(model, batch)
            if self.window.complete:
                self._reduce()
                self.count += 1
            return loss
        batch = self.window.add(self._with_labels_of(flat, inputs), device)
        if not flat.first_pass:
            return self._displaced_only(model, flat, batch)
        if flat.second_pass and self.trainer.args.perturb_over == "micro-batch":
            return self._both_at_once(model, flat, batch)
        return self._first(model, flat, batch)

    def logs(self) -> dict[str, float]:
        """Returns the passes so far, and the means since the last call of loss terms, ‖ε‖ and the loss gap."""
        logs = {"passes": self.count}
        if self._perturbation:
            norms, gaps = (torch.stack(values).mean().item() for values in zip(*self._perturbation, strict=True))
            logs |= {"perturbation": norms, "loss_gap": gaps}
        for name, total in self._terms.items():
            mean = self.trainer.accelerator.reduce(total / self._windows, "mean")
            logs[f"loss_{name}"] = mean.item()
        self._perturbation, self._terms, self._windows = [], {}, 0
        return logs

    def saw(self, outputs: Any, inputs: Mapping[str, Any], terms: Mapping[str, Tensor], share: float) -> None:
        """Records the loss terms of a pass, and the losses of its rows where the optimizer selects by them.

        Args:
            outputs: Of the model.
            inputs: The micro-batch.
            terms: Of its loss.
            share: The micro-batch's share of the window's rows.
        """
        for name, term in terms.items():  # in one order on all processes, which average them
            if name != "task" and not self._again:
                self._terms[name] = self._terms.get(name, torch.zeros(())) + term.detach() * share
        flat = self.flat
        if flat is not None and flat.second_share < 1:
            if not self._rows_known:
                with torch.no_grad():
                    check_row_losses(self.trainer.model, row_losses(outputs, inputs, self.trainer.model), outputs)
                self._rows_known = True
            self._row_losses = self._losses_of_rows(outputs, inputs)

    @torch.no_grad()
    def _losses_of_rows(self, outputs: Any, inputs: Mapping[str, Any]) -> Tensor:
        losses = row_losses(outputs, inputs, self.trainer.model)
        for feature in self.features.values():
            losses = feature.row_losses(losses, outputs, inputs)
        return losses

    @contextmanager
    def _undisplaced(self) -> Iterator[None]:
        """Puts the features in place around a pass; they stay so until the window is complete."""
        if self._open is None:
            self._open = ExitStack()
            self._open.enter_context(self.features.passes(self.loss_scale))
        yield
        if self.window.complete:
            stack, self._open = self._open, None
            stack.close()

    def _reduce(self) -> None:
        """Averages over processes the gradients of parameters outside the model."""
        world = self.trainer.args.world_size
        for p in self.features.parameters(reduced=True) if world > 1 else []:
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad  # every process has to take part
            dist.all_reduce(p.grad)
            p.grad /= world

    def _first(self, model: nn.Module, flat: FlatOptimizer, batch: Replay) -> Tensor:
        """Runs the pass at the weights; after the window's last micro-batch also the rest of the step."""
        # What only this process's displacement is made of need not be reduced (m-sharpness).
        shared = flat.shares_first_gradient or self.trainer.args.sync_perturbation
        alone = flat.second_pass and not shared and not any(f.shares_displacement for f in self.features.values())
        with self._undisplaced(), self.trainer.accelerator.no_sync(model) if alone else nullcontext():
            loss = self._pass(model, batch)
        batch.losses = self._row_losses
        self.window.loss += loss
        if self.window.complete:
            if not alone:
                self._reduce()
            self.count += 1
            if flat.second_pass:
                self._second(model, flat, self.window.batches, self.window.loss)
            flat.finish_gradients()
        return loss

    def _both_at_once(self, model: nn.Module, flat: FlatOptimizer, batch: Replay) -> Tensor:
        refuse_parts(type(flat), flat.second_share)
        parameters = [*model.parameters(), *self.features.parameters()]
        weight = batch.rows / self.window.size.rows * self.loss_scale
        no_sync = self.trainer.accelerator.no_sync(model)
        with gradients_set_aside(parameters) as put_back, no_sync, self.features.passes(weight):
            loss = self._pass(model, batch)
        self._second(model, flat, [batch], loss, put_back)
        if self.window.complete:
            self.count += 2 - len(self.window.batches)  # the others were counted one by one
            flat.finish_gradients()
        return loss

    def _displaced_only(self, model: nn.Module, flat: FlatOptimizer, batch: Replay) -> Tensor:
        """Runs a single displaced pass over all micro-batches at once, so that the weights move once."""
        if not self.window.complete:
            return torch.zeros_like(self.window.loss)
        loss = torch.zeros_like(self.window.loss)
        with flat.perturbed():
            self._clear(model)
            with self.features.passes(self.loss_scale):
                for one in self.window.batches:
                    with self._silent_before(model, one is batch):
                        loss += self._pass(model, one)
        self._reduce()
        self.count += 1
        self._perturbation.append((flat.last_norm.detach().clone(), torch.zeros_like(loss)))
        flat.finish_gradients()
        return loss

    def _second(
        self,
        model: nn.Module,
        flat: FlatOptimizer,
        batches: Sequence[Replay],
        first_loss: Tensor,
        put_back: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Runs the same micro-batches again, with the same dropout, at the displaced weights."""
        loss, gap = torch.zeros_like(first_loss), None
        whole = self.window.size
        weight = sum(batch.rows for batch in batches) / whole.rows * self.loss_scale
        with flat.perturbed():
            self._clear(model)
            with put_back(), self.features.passes(weight, again=True):
                if flat.second_share < 1:
                    batches, gap = self._most_raised(model, flat, batches)
                    whole = joint(batch.size for batch in batches)
                for batch in batches:
                    batch.restore_random_state()
                    with self._silent_before(model, batch is batches[-1]):
                        loss += self._pass(model, batch, whole, again=True)
        if self.window.complete:
            self._reduce()
        self.count += flat.second_share
        # Of all rows, also where the second pass takes those only for which it is largest.
        self._perturbation.append((flat.last_norm.detach().clone(), loss - first_loss if gap is None else gap))

    def _clear(self, model: nn.Module) -> None:
        model.zero_grad()
        self.features.zero_grad()

    def _silent_before(self, model: nn.Module, last: bool) -> AbstractContextManager[None]:
        # Whether the last one synchronises is what the Trainer's own loop decided for it.
        silence: AbstractContextManager[None] = nullcontext() if last else self.trainer.accelerator.no_sync(model)
        return silence

    def _most_raised(
        self, model: nn.Module, flat: FlatOptimizer, batches: Sequence[Replay]
    ) -> tuple[list[Replay], Tensor]:
        """Selects the rows of this process's window whose loss rose most, and computes the mean rise of all.

        The rows come as smaller micro-batches; one without any is left out.
        """
        rise = torch.cat([self._rise(model, batch) for batch in batches])
        self.count += _FORWARD_ALONE
        chosen = torch.zeros_like(rise, dtype=torch.bool)
        chosen[rise.topk(math.ceil(flat.second_share * len(rise))).indices] = True
        parts = zip(batches, torch.split(chosen, [b.rows for b in batches]), strict=True)
        return [batch.only(rows, self._size_of) for batch, rows in parts if rows.any()], rise.mean()

    def _rise(self, model: nn.Module, batch: Replay) -> Tensor:
        """Computes the rise of each row's loss [B] since the first pass."""
        batch.restore_random_state()
        with torch.no_grad(), self.trainer.compute_loss_context_manager():
            outputs = model(**without_added(batch.inputs))
        return self._losses_of_rows(outputs, batch.inputs) - batch.losses

    def _with_labels_of(self, flat: FlatOptimizer, inputs: dict[str, Any]) -> dict[str, Any]:
        if not flat.changes_labels:
            return inputs
        if "labels" not in inputs:
            raise InputError(
                f"{type(flat).__name__} changes labels, and the batches have none but {', '.join(inputs)}. "
                "Choose a task of classes or numbers, or another optimizer."
            )
        return inputs | {"labels": flat.prepare_labels(inputs["labels"], classes_of(self.trainer.model, inputs))}

    def _pass(self, model: nn.Module, batch: Replay, whole: Size | None = None, again: bool = False) -> Tensor:
        self._again = again
        return self._one_pass(model, batch, self.window.size if whole is None else whole)


def add_groups(optimizer: Optimizer, groups: Iterable[dict[str, Any]]) -> None:
    """Adds a feature's parameter groups to an optimizer that does not hold them yet; see ``Feature.param_groups``.

    Raises:
        InputError: a group is to be maximized by an optimizer that only minimizes.
    """
    known = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for group in groups:
        if group.get("maximize") and "maximize" not in optimizer.defaults:
            raise InputError(f"{type(optimizer).__name__} cannot maximize {group['params'][0][0]}. Use sgd or adamw.")
        if id(group["params"][0][1]) in known:
            continue
        named = "param_names" in optimizer.param_groups[0]
        params = group["params"] if named else [p for _, p in group["params"]]
        options = {key: value for key, value in group.items() if key not in ("params", "clip", "reduce", "constant")}
        optimizer.add_param_group({"params": params, **options})


def refuse_parts(flat: type[FlatOptimizer], second_share: float) -> None:
    """Refuses ``perturb_over: micro-batch`` for an optimizer whose step needs the gradient of the whole window.

    Raises:
        InputError: names the optimizer.
    """
    if flat.shares_first_gradient or second_share < 1:
        raise InputError(f"{flat.__name__} needs the gradient of the whole window. Use perturb_over: window.")
