"""The passes behind one optimizer step, in the order that a flat optimizer asks for."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from trainflat.anatomy.heads import check_row_losses, classes_of, row_losses
from trainflat.core.errors import InputError
from trainflat.optim import FlatOptimizer
from trainflat.training.shares import Size, Sizes, joint, over_processes
from trainflat.training.window import Replay, Window, gradients_set_aside

if TYPE_CHECKING:
    from trainflat.training.trainer import FlatTrainer

# A forward pass without a backward pass, in passes: backward takes about twice the time of forward.
_FORWARD_ALONE = 1 / 3


class Passes:
    """Runs and counts forward and backward passes over whole accumulation windows."""

    def __init__(self, trainer: "FlatTrainer") -> None:
        self.trainer = trainer
        self.window = Window()
        self.count: float = 0  # passes over a whole window since step 0
        self._perturbation: list[tuple[Tensor, Tensor]] = []  # (norm of the displacement, loss gap) since the last log
        self._rows_known = False  # whether losses of rows were held against the model's own loss
        self._example_losses = torch.zeros(())  # of the latest pass, where rows are weighed

    def begin(self, batches: Sequence[Any]) -> None:
        """A new step, over these micro-batches."""
        sizes = [self._size_of(batch) for batch in batches]
        self.window = Window(sizes, self._everywhere(joint(sizes)))
        flat, scaler = self.trainer.flat_optimizer, self.trainer.accelerator.scaler
        if flat is not None:
            flat.total_steps = self.trainer.state.max_steps
            flat.loss_scale = 1.0 if scaler is None else scaler.get_scale()

    @property
    def _size_of(self) -> Sizes:
        return Sizes.of(self.trainer.model, self.trainer.label_names)

    def _everywhere(self, size: Size) -> Size:
        args = self.trainer.args
        shared = args.world_size > 1 and args.average_tokens_across_devices
        return over_processes(size, args.device) if shared else size

    def micro_batch(self, model: nn.Module, inputs: dict[str, Any]) -> Tensor:
        """Does what can be done now that this micro-batch is here; its share of the window's loss."""
        flat, device = self.trainer.flat_optimizer, self.trainer.args.device
        if flat is None:
            self.trainer.gated.open()
            loss = self._pass(model, self.window.add(inputs, device))
            if self.window.complete:
                self.trainer.gated.close()
                self.count += 1
            return loss
        batch = self.window.add(self._with_labels_of(flat, inputs), device)
        if not flat.first_pass:
            return self._displaced_only(model, flat, batch)
        if flat.second_pass and self.trainer.args.perturb_over == "micro-batch":
            return self._both_at_once(model, flat, batch)
        return self._first(model, flat, batch)

    def perturbation(self) -> dict[str, float]:
        """Mean ‖ε‖ and loss gap of the displaced steps since the last call; empty if there were none."""
        if not self._perturbation:
            return {}
        norms, gaps = (torch.stack(values).mean().item() for values in zip(*self._perturbation, strict=True))
        self._perturbation = []
        return {"perturbation": norms, "loss_gap": gaps}

    def saw(self, outputs: Any, inputs: Mapping[str, Any]) -> None:
        """Keeps the losses of single rows, where the optimizer weighs them."""
        flat = self.trainer.flat_optimizer
        if flat is not None and flat.second_share < 1 and self.trainer.model.training:
            if not self._rows_known:
                with torch.no_grad():
                    check_row_losses(self.trainer.model, row_losses(outputs, inputs, self.trainer.model), outputs)
                self._rows_known = True
            self._example_losses = self.trainer.distilled.example_losses(outputs, inputs)

    def _first(self, model: nn.Module, flat: FlatOptimizer, batch: Replay) -> Tensor:
        """The pass at the weights; behind the last micro-batch of the window follows the rest of the step."""
        # What only this process's displacement is made of need not be reduced (m-sharpness).
        shared = flat.shares_first_gradient or self.trainer.args.sync_perturbation
        alone = flat.second_pass and not shared and not self.trainer.gated.shares_displacement
        self.trainer.gated.open()
        with self.trainer.accelerator.no_sync(model) if alone else nullcontext():
            loss = self._pass(model, batch)
        batch.losses = self._example_losses
        self.window.loss += loss
        if self.window.complete:
            self.trainer.gated.close()
            self.count += 1
            if flat.second_pass:
                self._second(model, flat, self.window.batches, self.window.loss)
            flat.finish_gradients()
        return loss

    def _both_at_once(self, model: nn.Module, flat: FlatOptimizer, batch: Replay) -> Tensor:
        refuse_parts(type(flat), flat.second_share)
        gated, share = self.trainer.gated, batch.rows / self.window.size.rows
        parameters = [*model.parameters(), *gated.parameters()]
        with gradients_set_aside(parameters) as put_back, self.trainer.accelerator.no_sync(model), gated.passes(share):
            loss = self._pass(model, batch)
        self._second(model, flat, [batch], loss, put_back)
        if self.window.complete:
            self.count += 2 - len(self.window.batches)  # the others were counted one by one
            flat.finish_gradients()
        return loss

    def _displaced_only(self, model: nn.Module, flat: FlatOptimizer, batch: Replay) -> Tensor:
        """A displacement that is remembered, and one pass; all micro-batches at once, so that the weights move once."""
        if not self.window.complete:
            return torch.zeros_like(self.window.loss)
        loss = torch.zeros_like(self.window.loss)
        with flat.perturbed():
            self._clear(model)
            with self.trainer.gated.passes():
                for one in self.window.batches:
                    with self._silent_before(model, one is batch):
                        loss += self._pass(model, one)
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
        share = sum(batch.rows for batch in batches) / whole.rows
        with flat.perturbed(), self.trainer.along.quantized.unseen():
            self._clear(model)
            with put_back(), self.trainer.gated.passes(share):
                if flat.second_share < 1:
                    batches, gap = self._most_raised(model, flat, batches)
                    whole = joint(batch.size for batch in batches)
                for batch in batches:
                    batch.restore_random_state()
                    with self._silent_before(model, batch is batches[-1]):
                        loss += self._pass(model, batch, whole)
        self.count += flat.second_share
        # Of all rows, also where the second pass takes those only for which it is largest.
        self._perturbation.append((flat.last_norm.detach().clone(), loss - first_loss if gap is None else gap))

    def _clear(self, model: nn.Module) -> None:
        model.zero_grad()
        self.trainer.gated.zero_grad()

    def _silent_before(self, model: nn.Module, last: bool) -> AbstractContextManager[None]:
        # Whether the last one synchronises is what the Trainer's own loop decided for it.
        silence: AbstractContextManager[None] = nullcontext() if last else self.trainer.accelerator.no_sync(model)
        return silence

    def _most_raised(
        self, model: nn.Module, flat: FlatOptimizer, batches: Sequence[Replay]
    ) -> tuple[list[Replay], Tensor]:
        """The rows of this process's window whose loss the displacement raised most, and the mean rise of all.

        The rows come as smaller micro-batches; one without any is left out.
        """
        rise = torch.cat([self._rise(model, batch) for batch in batches])
        self.count += _FORWARD_ALONE
        chosen = torch.zeros_like(rise, dtype=torch.bool)
        chosen[rise.topk(math.ceil(flat.second_share * len(rise))).indices] = True
        parts = zip(batches, torch.split(chosen, [b.rows for b in batches]), strict=True)
        return [batch.only(rows, self._size_of) for batch, rows in parts if rows.any()], rise.mean()

    def _rise(self, model: nn.Module, batch: Replay) -> Tensor:
        """How much the loss of each row [B] is higher than it was in the first pass."""
        batch.restore_random_state()
        in_place = self.trainer.reparametrized.weights_in_place()
        with torch.no_grad(), self.trainer.compute_loss_context_manager(), in_place:
            outputs = model(**self.trainer.distilled.without(batch.inputs))
        return self.trainer.distilled.example_losses(outputs, batch.inputs) - batch.losses

    def _with_labels_of(self, flat: FlatOptimizer, inputs: dict[str, Any]) -> dict[str, Any]:
        if not flat.changes_labels:
            return inputs
        if "labels" not in inputs:
            raise InputError(
                f"{type(flat).__name__} changes labels, and the batches have none but {', '.join(inputs)}. "
                "Choose a task of classes or numbers, or another optimizer."
            )
        return inputs | {"labels": flat.prepare_labels(inputs["labels"], classes_of(self.trainer.model, inputs))}

    def _pass(self, model: nn.Module, batch: Replay, whole: Size | None = None) -> Tensor:
        return self.trainer.one_pass(model, batch, self.window.size if whole is None else whole)


def refuse_parts(flat: type[FlatOptimizer], second_share: float) -> None:
    """What ``perturb_over: micro-batch`` asks of an optimizer.

    Raises:
        InputError: its step is made of the gradient of all rows.
    """
    if flat.shares_first_gradient or second_share < 1:
        raise InputError(f"{flat.__name__} needs the gradient of the whole window. Use perturb_over: window.")
