"""``transformers.Trainer`` with flat optimizers, masks, averages and exact resuming. The mathematics live below."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import Sampler

from trainflat.anatomy.params import unwrapped
from trainflat.core.errors import InputError
from trainflat.core.settings import Section
from trainflat.optim.base import FlatOptimizer
from trainflat.pruning import Masks
from trainflat.training import checkpoints, given
from trainflat.training.along import Along
from trainflat.training.callbacks import FlatCallback
from trainflat.training.distilled import Distilled
from trainflat.training.finite import Finite
from trainflat.training.gated import Gated
from trainflat.training.hooks import micro_batch_rows, require_division, require_hooks
from trainflat.training.options import read_optimizer
from trainflat.training.passes import Passes
from trainflat.training.reparametrized import Reparametrized
from trainflat.training.sampler import LengthGroupedSampler, own_sampler
from trainflat.training.sealed import SealedTrainer
from trainflat.training.shares import Size, Sizes, with_items
from trainflat.training.window import Replay

Score = Callable[[Any, Any], dict[str, float]]
"""Takes an evaluation split and the predictions for it, gives its metrics."""


class FlatTrainer(SealedTrainer):
    """A Trainer whose optimizer may be flat and whose weights may be masked.

    Args:
        optimizer: Name of an optimizer, a mapping ``{"name": "sam", "rho": 0.05, "lr": 2e-5}``, or None for the
            Trainer's own (then ``optimizers=(SAM(...), None)`` works too). An ``lr`` that is not given is that
            of the arguments.
        masks: Pruned weights are held at exactly zero; checked at every evaluation and save.
        averaging: Name of an averaging or a mapping ``{"name": "swa", "every": 0.5}``. As soon as the average holds a
            model it is evaluated in place of the weights, and only then can an evaluation be the best; the best
            checkpoint's average, or without ``load_best_model_at_end`` the last one, is what training ends with.
        gate: Name of a gate or a mapping ``{"name": "hard-movement", "sparsity": 0.9}``. It is in place at evaluations,
            only at the sparsity to end with can one be the best, and training ends with a model that is pruned
            for good and its ``masks``. Gradients of scores are clipped together with those of the model.
        distillation: A teacher, or a mapping ``{"teacher": folder or model, "weight": 0.5, "temperature": 2}``; see
            :class:`trainflat.distillation.Distillation`. It is asked once per micro-batch; evaluations know no teacher.
            With ``"renew": "best"`` the best model evaluated so far takes its place; see
            :class:`trainflat.training.renewed.Renewed`.
        reparametrization: Name of one or a mapping ``{"name": "powerprop", "alpha": 2}``. Between passes the model then
            holds θ, which optimizers move and displace; evaluations and checkpoints, and the model in the end, hold w.
        quantization: ``"q8bert"`` or a mapping: the model computes as its int8 copy till ``along.quantized.end()``.
        score: Metrics of one evaluation split; takes the place of ``compute_metrics``.

    Departs from the Trainer where it is wrong or inexact: the loss of a window is the mean over its rows, or its labels
    that count, for every encoder head (transformers issue 47688); checkpoints are sealed by hashes, and only whole ones
    are resumed from; logs end where checkpoints begin, so that a resumed run logs the same numbers; a loss that is not
    a number ends the run. Every argument works as there or is refused; ``tests/training/test_promises.py`` lists them.

    Raises:
        InputError: FSDP or DeepSpeed; an averaging, a gate, a distillation or a teacher that cannot be used.
    """

    optimizer: Any  # the Trainer wraps it

    def __init__(
        self,
        *args: Any,
        optimizer: Section | None = None,
        masks: Masks | None = None,
        averaging: Section | None = None,
        gate: Section | None = None,
        distillation: Any = None,
        reparametrization: Section | None = None,
        quantization: Section | None = None,
        score: Score | None = None,
        **kwargs: Any,
    ) -> None:
        require_hooks()
        if args:  # the Trainer puts wrappers of its own around the plain model
            args = (unwrapped(args[0]), *args[1:])
        kwargs |= {"model": unwrapped(kwargs["model"])} if "model" in kwargs else {}
        super().__init__(*args, **kwargs)
        given.unprepared(self.model)
        given.complete(self.args)
        given.refuse_sharding(self)
        self.optimizer_recipe = read_optimizer(optimizer)
        given.refuse_unheard(self, self.optimizer_recipe, score)
        self.masks, self.score = masks, score
        self._hold(masks)
        # Encoder heads take **kwargs and so look as if they divided their loss by `num_items_in_batch`; they do not. A
        # loss function of the user's is given the number of its micro-batch, so it returns a mean as well.
        self.model_accepts_loss_kwargs = self.loss_is_scaled_for_ga = False
        self.compute_loss_func: Any = with_items(self.compute_loss_func, Sizes.of(self.model, self.label_names))
        self.passes = Passes(self)
        self.along, self.gated = Along(averaging, quantization), Gated(self, gate)
        self.averaged = self.along.averaged
        if masks is not None and self.gated.name is not None:
            raise InputError(f"masks are fixed, and the gate {self.gated.name!r} makes its own. Give one of the two.")
        self.distilled = Distilled(self, distillation)
        self.reparametrized = Reparametrized(
            reparametrization, averaging=averaging, quantization=quantization, gate=self.gated.swaps
        )
        self._finite, self._weight = Finite(self), 1.0
        self._sampler: LengthGroupedSampler | None = None
        self._scored_split: Any = None
        if score is not None:
            self.compute_metrics = lambda found: score(self._scored_split, found.predictions)
        self.add_callback(FlatCallback(self))

    # What is trained, in which order

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """The Trainer's; whatever ends it, the model then holds weights."""
        with self.reparametrized.training():
            return super().train(*args, **kwargs)

    def create_optimizer(self, model: nn.Module | None = None) -> Optimizer:
        """The optimizer of the recipe over named parameters; biases and LayerNorm are not decayed."""
        if self.optimizer is None and self.optimizer_recipe is not None:
            settings = self.optimizer_recipe
            if "lr" not in settings.model_fields_set:
                settings = settings.model_copy(update={"lr": self.args.learning_rate})
            self.optimizer = settings.build(self._groups(model or self.model))
        else:
            super().create_optimizer(model)
        self.gated.join(self.optimizer)
        given.refuse_without_rows(self, self.flat_optimizer)
        if self.flat_optimizer is not None and self.held is not None:
            self.flat_optimizer.held = self.held
        optimizer: Optimizer = self.optimizer
        return optimizer

    def _groups(self, model: nn.Module) -> list[dict[str, Any]]:
        decayed = set(self.get_decay_parameter_names(model))
        named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [(n, p) for n, p in named if n in decayed]},
            {"params": [(n, p) for n, p in named if n not in decayed], "weight_decay": 0.0},
        ]
        return [group for group in groups if group["params"]]

    @property
    def flat_optimizer(self) -> FlatOptimizer | None:
        """The optimizer below accelerate's wrapper, if it is a flat one."""
        optimizer = getattr(self.optimizer, "optimizer", self.optimizer)
        return optimizer if isinstance(optimizer, FlatOptimizer) else None

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        self._sampler = own_sampler(dataset, self.args, micro_batch_rows(self))
        return super()._get_train_sampler(dataset) if self._sampler is None else self._sampler

    def _run_epoch(self, *args: Any, epoch: int, **kwargs: Any) -> None:
        if self._sampler is not None:
            self._sampler.set_epoch(epoch)
        super()._run_epoch(*args, epoch=epoch, **kwargs)

    # One step

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list[Any], Any]:
        """The micro-batches of one step; remembers how many rows each holds."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.passes.begin(batches)
        return batches, items

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """The passes that the optimizer wants over the window that this micro-batch may complete.

        Returns:
            The loss at the undisplaced weights, where a pass stands there, as its share of the window's mean.
        """
        try:
            loss = self.passes.micro_batch(model, self.distilled.ask(self._prepare_inputs(inputs)))
        except BaseException:
            self.gated.abandon()
            raise
        if self.passes.window.complete:
            if self.held is not None:
                self.held.mask_gradients()
            self.gated.observe()
        self._finite.require(loss)
        return loss

    def one_pass(self, model: nn.Module, batch: Replay, whole: Size) -> Tensor:
        """A forward and backward pass over a micro-batch of a window of that size; its share of the loss."""
        require_division(self)
        # The Trainer divides a micro-batch's loss by this; so the window's gradient is that of the mean over its rows,
        # also where the last micro-batch is smaller than the others.
        self.current_gradient_accumulation_steps = whole.rows / batch.rows
        self._weight = batch.size.weight(whole)
        try:
            with self.reparametrized.weights_in_place():
                loss: Tensor = super().training_step(model, dict(batch.inputs))
        finally:
            self._weight = 1.0
        return loss

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **kwargs: Any
    ) -> Any:
        """The Trainer's, and the teacher's share; a method that weighs single rows may want the outputs."""
        whole = dict(inputs)  # of which label smoothing takes the labels
        loss, outputs = super().compute_loss(model, self.distilled.without(inputs), return_outputs=True, **kwargs)
        if self._weight != 1:  # of what the head's loss is a mean over, in place of rows; 0 where nothing counts
            loss = loss * self._weight if self._weight else loss.nan_to_num(0.0) * 0.0
        loss = self.distilled.blend(loss, outputs, whole, self._weight)
        self.passes.saw(outputs, whole)
        return (loss, outputs) if return_outputs else loss

    # What is measured and kept

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the passes so far and, for a flat optimizer, the mean ‖ε‖ and loss gap since the last log."""
        if "loss" in logs:
            logs |= {"passes": self.passes.count, **self.passes.perturbation(), **self.gated.logs()}
        elif any(key.startswith("eval_") for key in logs):
            logs |= {"averaged_models": self.averaged.models} if self.averaged.name is not None else {}
            logs |= self.gated.logs()
        super().log(logs, start_time)

    def evaluation_loop(self, dataloader: Any, *args: Any, **kwargs: Any) -> Any:
        """Checks that zeros are zero, then evaluates; ``score`` sees the split it scores."""
        with self.as_evaluated():
            self._check_zeros()
            self._scored_split = dataloader.dataset
            return super().evaluation_loop(dataloader, *args, **kwargs)

    @contextmanager
    def as_evaluated(self) -> Iterator[None]:
        """Inside the block the model is the one that evaluations see: averaged, in weights, and gated."""
        with self.averaged.in_place(), self.reparametrized.weights_in_place(), self.gated.applied():
            yield

    def _hold(self, masks: Masks | None) -> None:
        self.held = masks.hold(self.model) if masks is not None else None
        self._check_zeros()

    def _check_zeros(self) -> None:
        if self.masks is not None:
            self.masks.check(self.model)

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        self.distilled.renewed.evaluated(metrics)
        # Weights before the average begins, or denser than at the end, are not what training will end with.
        return not self.averaged.waits and not self.gated.waits and super()._determine_best_metric(metrics, trial)

    def _finalize_training(self, *args: Any, **kwargs: Any) -> Any:
        self.averaged.end()
        self.masks = self.gated.finish() or self.masks
        return super()._finalize_training(*args, **kwargs)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        best = Path(self.state.best_model_checkpoint)
        self.reparametrized.loaded()
        self.along.load(best)
        self.averaged.end()
        self.gated.load(best, self.state.best_global_step)
        self.masks = self.gated.finish() or self.masks

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        if not self.gated.parameters():
            return super()._clip_grad_norm(model)
        together = [*model.parameters(), *self.gated.parameters()]
        return self.accelerator.clip_grad_norm_(together, self.args.max_grad_norm)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self._check_zeros()
        with self.averaged.in_place(), self.gated.applied():
            self._check_zeros()
        with self.reparametrized.weights_in_place():
            super()._save_checkpoint(model, trial)

    def save_beside(self, checkpoint: Path) -> None:
        for part in (self.along, self.gated, self.reparametrized, self.distilled.renewed):
            part.save(checkpoint)

    def passes_so_far(self) -> float:
        return self.passes.count

    def _init_training_state(self, max_steps: int, steps_per_epoch: int, epochs: int, resume: Any, *args: Any) -> Any:
        counts = super()._init_training_state(max_steps, steps_per_epoch, epochs, resume, *args)
        step = self.state.global_step
        resumed = Path(resume) if step else None
        # The model is not that of __init__ where model_init makes one.
        if self.gated.name is None:
            self._hold(self.masks)
        self.along.begin(self.model, max_steps, steps_per_epoch)
        self.gated.begin(max_steps, resumed, step)
        self.reparametrized.begin(self.model, resumed)
        self.distilled.renewed.begin(max_steps, steps_per_epoch, resumed)
        self.passes.count = 0 if resumed is None else checkpoints.read_flat(resumed).passes
        if resumed is not None:
            self.along.load(resumed)
        return counts
