"""``transformers.Trainer`` with flat optimizers, masks, averages and exact resuming. The mathematics live below."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import Sampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from trainflat.errors import InputError
from trainflat.files import read_json, write_json, writing
from trainflat.optim import make_optimizer
from trainflat.optim.base import FlatOptimizer
from trainflat.pruning import Masks
from trainflat.training import checkpoints
from trainflat.training.along import Along
from trainflat.training.distilled import Distilled
from trainflat.training.finite import Finite
from trainflat.training.options import optimizer_section
from trainflat.training.passes import Passes
from trainflat.training.reparametrized import Reparametrized
from trainflat.training.sampler import LengthGroupedSampler, ShuffledSampler, lengths_of
from trainflat.training.window import Replay

Score = Callable[[Any, Any], dict[str, float]]
"""Takes an evaluation split and the predictions for it, gives its metrics."""


@dataclass
class FlatArguments(TrainingArguments):  # type: ignore[misc]
    """``transformers.TrainingArguments`` and how a flat optimizer's two passes meet accumulation and data parallel.

    Attributes:
        perturb_over: ``"window"``: perturb once per step by the gradient of the whole accumulation window, so that 2
            × 16 rows take the same step as 1 × 32. ``"micro-batch"``: perturb for each micro-batch by its own
            gradient.
        sync_perturbation: Under data parallel, perturb by the gradient of all processes. Otherwise each process
            perturbs by its own gradient (m-sharpness, Foret et al. 2021, section 3), and the first pass needs no
            communication.
        length_grouped: Batches of rows of one length, in an order that resumes exactly. Lengths are the training set's
            attribute ``lengths``, else those of its ``input_ids``; a set without either keeps the Trainer's order.
    """

    perturb_over: str = field(default="window")
    sync_perturbation: bool = field(default=False)
    length_grouped: bool = field(default=True)


class FlatTrainer(Trainer):  # type: ignore[misc]
    """A Trainer whose optimizer may be flat and whose weights may be masked.

    Args:
        optimizer: Name of an optimizer, a mapping ``{"name": "sam", "rho": 0.05, "lr": 2e-5}``, or None for the
            Trainer's own (then ``optimizers=(SAM(...), None)`` works too). An ``lr`` that is not given is that
            of the arguments.
        masks: Pruned weights are held at exactly zero; checked at every evaluation and save.
        averaging: Name of an averaging or a mapping ``{"name": "swa", "every": 0.5}``. As soon as the average holds a
            model it is evaluated in place of the weights, and only then can an evaluation be the best; the best
            checkpoint's average, or without ``load_best_model_at_end`` the last one, is what training ends with.
        distillation: A teacher, or a mapping ``{"teacher": folder or model, "weight": 0.5, "temperature": 2}``; see
            :class:`trainflat.distillation.Distillation`. It is asked once per micro-batch; evaluations know no teacher.
        reparametrization: Name of one or a mapping ``{"name": "powerprop", "alpha": 2}``. Between passes the model then
            holds θ, which optimizers move and displace; evaluations and checkpoints, and the model in the end, hold w.
        quantization: ``"q8bert"`` or a mapping: the model computes as its int8 copy till ``along.quantized.end()``.
        score: Metrics of one evaluation split; takes the place of ``compute_metrics``.

    Departs from the Trainer where it is wrong or inexact: the loss of a window is the mean over its rows for every
    encoder head (transformers issue 47688); checkpoints are sealed by hashes; logs end where checkpoints begin, so
    that a resumed run logs the same numbers; a loss that is not a number ends the run.

    Raises:
        InputError: FSDP or DeepSpeed; an averaging, a distillation or a teacher that cannot be used.
    """

    optimizer: Any  # the Trainer wraps it

    def __init__(
        self,
        *args: Any,
        optimizer: str | Mapping[str, Any] | None = None,
        masks: Masks | None = None,
        averaging: str | Mapping[str, Any] | None = None,
        distillation: Any = None,
        reparametrization: str | Mapping[str, Any] | None = None,
        quantization: str | Mapping[str, Any] | None = None,
        score: Score | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise InputError(
                "FlatTrainer does not shard models: FSDP and DeepSpeed are not supported. Use data parallel (torchrun)."
            )
        self.optimizer_recipe = optimizer_section(optimizer)
        self.masks, self.score = masks, score
        self.held = masks.hold(self.model) if masks is not None else None
        self._check_zeros()
        # Encoder heads take **kwargs and so look as if they divided their loss by `num_items_in_batch`; they do not. A
        # loss function of the user's is given no such number, so it returns a mean as well.
        self.model_accepts_loss_kwargs = self.loss_is_scaled_for_ga = False
        self.passes = Passes(self)
        self.along = Along(averaging, quantization)
        self.averaged = self.along.averaged
        self.distilled = Distilled(self, distillation)
        self.reparametrized = Reparametrized(reparametrization, averaging=averaging, quantization=quantization)
        self.stopped_early = False
        self._finite = Finite(self)
        self._sampler: LengthGroupedSampler | None = None
        self._scored_split: Any = None
        if score is not None:
            self.compute_metrics = lambda given: score(self._scored_split, given.predictions)
        self.add_callback(_FlatCallback(self))

    # What is trained, in which order

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """The Trainer's; whatever ends it, the model then holds weights."""
        with self.reparametrized.training():
            return super().train(*args, **kwargs)

    def create_optimizer(self, model: nn.Module | None = None) -> Optimizer:
        """The optimizer of the recipe over named parameters; biases and LayerNorm are not decayed."""
        if self.optimizer is None and self.optimizer_recipe is not None:
            options = {"lr": self.args.learning_rate} | dict(self.optimizer_recipe)
            self.optimizer = make_optimizer(options.pop("name"), self._groups(model or self.model), **options)
        else:
            super().create_optimizer(model)
        flat = self.flat_optimizer
        if flat is not None and self.held is not None:
            flat.held = self.held
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
        lengths = lengths_of(dataset)
        if lengths is None:
            return super()._get_train_sampler(dataset)  # type: ignore[no-any-return]
        rows = self._train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        kind = LengthGroupedSampler if self.args.length_grouped else ShuffledSampler
        seed = self.args.data_seed if self.args.data_seed is not None else self.args.seed
        self._sampler = kind(lengths, rows, seed)
        return self._sampler

    def _run_epoch(self, *args: Any, epoch: int, **kwargs: Any) -> None:
        if self.stopped_early:  # resumed from the last checkpoint of a run that had ended by early stopping
            self.control.should_training_stop = True
            return
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
        loss = self.passes.micro_batch(model, self.distilled.ask(self._prepare_inputs(inputs)))
        if self.passes.window.complete and self.held is not None:
            self.held.mask_gradients()
        self._finite.require(loss)
        return loss

    def one_pass(self, model: nn.Module, batch: Replay, total_rows: int) -> Tensor:
        """A forward and backward pass over a micro-batch of a window of ``total_rows``; its share of the loss."""
        # The Trainer divides a micro-batch's loss by this; so the window's gradient is that of the mean over its rows,
        # also where the last micro-batch is smaller than the others.
        self.current_gradient_accumulation_steps = total_rows / batch.rows
        with self.reparametrized.weights_in_place():
            loss: Tensor = super().training_step(model, dict(batch.inputs))
        return loss

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **kwargs: Any
    ) -> Any:
        """The Trainer's, and the teacher's share; a method that weighs single rows may want the outputs."""
        given = dict(inputs)  # of which label smoothing takes the labels
        loss, outputs = super().compute_loss(model, self.distilled.without(inputs), return_outputs=True, **kwargs)
        loss = self.distilled.blend(loss, outputs, given)
        self.passes.saw(outputs, given)
        return (loss, outputs) if return_outputs else loss

    # What is measured and kept

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the passes so far and, for a flat optimizer, the mean ‖ε‖ and loss gap since the last log."""
        if "loss" in logs:
            logs |= {"passes": self.passes.count, **self.passes.perturbation()}
        elif self.averaged.name is not None and any(key.startswith("eval_") for key in logs):
            logs |= {"averaged_models": self.averaged.models}
        super().log(logs, start_time)

    def evaluation_loop(self, dataloader: Any, *args: Any, **kwargs: Any) -> Any:
        """Checks that zeros are zero, then evaluates; ``score`` sees the split it scores."""
        with self.averaged.in_place(), self.reparametrized.weights_in_place():
            self._check_zeros()
            self._scored_split = dataloader.dataset
            return super().evaluation_loop(dataloader, *args, **kwargs)

    def _check_zeros(self) -> None:
        if self.masks is not None:
            self.masks.check(self.model)

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        # The weights as they are before the average begins are not what training will end with.
        return not self.averaged.waits and super()._determine_best_metric(metrics, trial)

    def _finalize_training(self, *args: Any, **kwargs: Any) -> Any:
        self.averaged.end()
        return super()._finalize_training(*args, **kwargs)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        self.reparametrized.loaded()
        self.along.load(Path(self.state.best_model_checkpoint))
        self.averaged.end()

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self._check_zeros()
        with self.averaged.in_place():
            self._check_zeros()
        step, folder = self.state.global_step, Path(self.args.output_dir)
        with writing(checkpoints.path(folder, step)), self.reparametrized.weights_in_place():
            super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            stopped = self.control.should_training_stop and step < self.state.max_steps
            self.along.save(checkpoints.path(folder, step))
            self.reparametrized.save(checkpoints.path(folder, step))
            write_json(checkpoints.path(folder, step) / "flat.json", {"passes": self.passes.count, "stopped": stopped})
            checkpoints.finish(folder, step, self.state.best_global_step)
        self.accelerator.wait_for_everyone()

    def _init_training_state(self, max_steps: int, steps_per_epoch: int, *args: Any, **kwargs: Any) -> Any:
        counts = super()._init_training_state(max_steps, steps_per_epoch, *args, **kwargs)
        self.along.begin(self.model, max_steps, steps_per_epoch)  # not that of __init__, where model_init makes one
        self.passes.count, self.stopped_early = 0, False
        step = self.state.global_step
        self.reparametrized.begin(self.model, checkpoints.path(Path(self.args.output_dir), step) if step else None)
        if self.state.global_step:  # resumed
            folder = Path(self.args.output_dir)
            flat = read_json(checkpoints.path(folder, self.state.global_step) / "flat.json")
            self.passes.count, self.stopped_early = flat["passes"], flat["stopped"]
            self.along.load(checkpoints.path(folder, self.state.global_step))
            if self.state.best_global_step:  # the folder may have moved since
                self.state.best_model_checkpoint = str(checkpoints.path(folder, self.state.best_global_step))
        return counts


class _FlatCallback(TrainerCallback):  # type: ignore[misc]
    """What must happen between the Trainer's own calls."""

    def __init__(self, trainer: FlatTrainer) -> None:
        self.trainer = trainer

    def on_optimizer_step(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.trainer.held is not None:
            self.trainer.held.mask_weights()

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.trainer.along.update(state.global_step)
        self.on_epoch_end(args, state, control)

    def on_epoch_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        # Sums between logs are not in a checkpoint: log first, so that there are none.
        control.should_log = control.should_log or control.should_save
