"""Extends ``transformers.Trainer`` by flat optimizers and exact resuming: the loop; all else is a feature."""

import math
from collections.abc import Callable
from functools import partial, reduce
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import Sampler

from trainflat.anatomy.params import unwrapped
from trainflat.core.settings import Section
from trainflat.optim.base import FlatOptimizer
from trainflat.pruning import Masks
from trainflat.training import checkpoints, given
from trainflat.training.callbacks import FeatureCallback
from trainflat.training.features import FEATURES, Features, Run
from trainflat.training.features.base import without_added
from trainflat.training.hooks import micro_batch_rows, require_division, require_hooks
from trainflat.training.options import read_optimizer
from trainflat.training.restarts import rescheduled
from trainflat.training.rows import objective_on_training_rows
from trainflat.training.sampler import LengthGroupedSampler, own_sampler
from trainflat.training.sealed import SealedTrainer
from trainflat.training.shares import Size, Sizes, with_items
from trainflat.training.step_runner import StepRunner, add_groups
from trainflat.training.window import Replay

Score = Callable[[Any, Any], dict[str, float]]
"""Takes an evaluation split and the predictions for it, gives its metrics."""


class FlatTrainer(SealedTrainer):
    """Trains with flat optimizers, and with the features that are given: masks, gates, averages, teachers and more.

    Args:
        *args: As for ``transformers.Trainer``.
        optimizer: Name of an optimizer, a mapping ``{"name": "sam", "rho": 0.05, "lr": 2e-5}``, or None for the
            Trainer's own (then ``optimizers=(SAM(...), None)`` works too). Without an ``lr`` the arguments' is used.
        score: Computes the metrics of one evaluation split; takes the place of ``compute_metrics``.
        **kwargs: As for ``transformers.Trainer``, and the settings of each feature under its key in
            :data:`trainflat.training.features.FEATURES`, whose class documents them:

            - ``masks``: pruned weights are held at exactly zero; checked at every evaluation and save.
            - ``averaging``: ``"swa"`` or ``{"name": "swa", "every": 0.5}``. As soon as the average holds a model it is
              evaluated in place of the weights, and only then can an evaluation be the best. Training ends with the
              best checkpoint's average, or without ``load_best_model_at_end`` with the last one.
            - ``gate``: ``{"name": "hard-movement", "sparsity": 0.9}``. Evaluations see the gated model, only at the
              final sparsity can one be the best, and training ends with a pruned model and its ``masks``. Gradients
              of scores are clipped together with the model's.
            - ``distillation``: a teacher or ``{"teacher": folder or model, "weight": 0.5, "temperature": 2}``. With
              ``"renew": "best"`` the best model evaluated so far takes the teacher's place.
            - ``reparametrization``: ``{"name": "powerprop", "alpha": 2}``. Between steps the model holds θ, which
              optimizers move and displace; evaluations, checkpoints and the finished model hold w.
            - ``quantization``: ``"q8bert"`` or a mapping; the model computes as its int8 copy until ``release()``.

    Attributes:
        features: By key, those that joined.
        passes: Runs the passes; ``passes.count`` counts them.

    Departs from the Trainer where it is wrong or inexact: the loss of a window is the mean over its rows, or its labels
    that count, for every encoder head (transformers issue 47688); checkpoints are sealed by hashes, and only whole ones
    are resumed from; logs end where checkpoints begin, so that a resumed run logs the same numbers; a loss that is not
    finite ends the run. Every argument works as there or is refused; ``tests/training/test_promises.py`` lists them.

    Raises:
        InputError: FSDP or DeepSpeed; settings that cannot be used.
    """

    optimizer: Any  # the Trainer wraps it

    def __init__(
        self,
        *args: Any,
        optimizer: Section | None = None,
        score: Score | None = None,
        **kwargs: Any,
    ) -> None:
        require_hooks()
        settings = {key: kwargs.pop(key) for key in FEATURES if key in kwargs}
        if args:  # the Trainer puts wrappers of its own around the plain model
            args = (unwrapped(args[0]), *args[1:])
        kwargs |= {"model": unwrapped(kwargs["model"])} if "model" in kwargs else {}
        super().__init__(*args, **kwargs)
        given.unprepared(self.model)
        given.complete(self.args)
        given.refuse_sharding(self)
        self.optimizer_recipe, self.score = read_optimizer(optimizer), score
        given.refuse_unheard(self, self.optimizer_recipe, score)
        self.features = Features(FEATURES, settings)
        self.features.join(self.run_of())
        # Encoder heads take **kwargs and so look as if they divided their loss by `num_items_in_batch`; they do not. A
        # loss function of the user's is given the number of its micro-batch, so it returns a mean as well.
        self.model_accepts_loss_kwargs = self.loss_is_scaled_for_ga = False
        self.compute_loss_func: Any = with_items(self.compute_loss_func, Sizes.of(self.model, self.label_names))
        self.passes = StepRunner(self, self.features, self.one_pass)
        self._pass: tuple[float, float] | None = None  # of the pass that runs: weight of its loss, share of the rows
        self._sampler: LengthGroupedSampler | None = None
        self._scored_split: Any = None
        if score is not None:
            self.compute_metrics = lambda found: score(self._scored_split, found.predictions)
        self.add_callback(FeatureCallback(self.features))

    @property
    def masks(self) -> Masks | None:
        """Returns the masks of the weights that are pruned for good; None for a dense model."""
        return next((f.masks for f in self.features.values() if f.masks is not None), None)

    def run_of(self, total_steps: int = 0, steps_per_epoch: int = 0) -> Run:
        """Describes a training of this trainer to its features."""
        every = {"epoch": steps_per_epoch, "steps": self.state.eval_steps}
        return Run(
            model=self.model,
            args=self.args,
            features=self.features,
            tokenizer=self.processing_class,
            objective=partial(objective_on_training_rows, self),
            autocast=self.accelerator.autocast,
            own_loss=bool(self.args.label_smoothing_factor) or self.compute_loss_func is not None,
            has_scheduler=self.lr_scheduler is not None,
            loss_is_scaled=self.accelerator.scaler is not None,
            total_steps=total_steps,
            steps_per_epoch=steps_per_epoch,
            evaluate_every=every.get(str(self.args.eval_strategy.value), 0),
        )

    def release(self) -> None:
        """Removes what features leave on the model after training, such as fake quantization."""
        for feature in self.features.values():
            feature.release()

    # What is trained, in which order

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Runs Trainer.train; afterwards, even on error, the model holds ordinary weights."""
        try:
            return super().train(*args, **kwargs)
        except BaseException as error:
            self.passes.abandon(error)
            raise
        finally:
            for feature in self.features.values():
                feature.ended()

    def create_optimizer(self, model: nn.Module | None = None) -> Optimizer:
        """Builds the recipe's optimizer over named parameters; biases and LayerNorm are not decayed."""
        if self.optimizer is None and self.optimizer_recipe is not None:
            settings = self.optimizer_recipe
            if "lr" not in settings.model_fields_set:
                settings = settings.model_copy(update={"lr": self.args.learning_rate})
            self.optimizer = settings.build(self._groups(model or self.model))
        else:
            super().create_optimizer(model)
        optimizer: Optimizer = getattr(self.optimizer, "optimizer", self.optimizer)  # below accelerate's wrapper
        given.refuse_without_rows(self, self.flat_optimizer)
        for feature in self.features.values():
            add_groups(optimizer, feature.param_groups())
            feature.optimizer_made(optimizer)
        return self.optimizer  # type: ignore[no-any-return]

    def create_scheduler(self, num_training_steps: int, optimizer: Optimizer | None = None) -> Any:
        """Builds the Trainer's scheduler; where features ask for it, one that restarts or leaves their rates alone."""
        made: Any = super().create_scheduler(num_training_steps, optimizer)
        groups = [group for feature in self.features.values() for group in feature.param_groups()]
        still = {id(group["params"][0][1]) for group in groups if group.get("constant")}
        restart = next((f.restarts_at for f in self.features.values() if f.restarts_at), None)
        if still or restart:
            constant = [id(group["params"][0]) in still for group in made.optimizer.param_groups]
            made = self.lr_scheduler = rescheduled(self.args, num_training_steps, made, constant, restart)
        return made

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
        """Returns the optimizer below accelerate's wrapper, if it is a flat one."""
        return self.passes.flat

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
        """Draws the micro-batches of one step, and measures them."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.passes.begin(batches)
        return batches, items

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Runs the passes that the optimizer wants now that this micro-batch is here.

        Returns:
            The loss at the undisplaced weights, where a pass stands there, as its share of the window's mean.
        """
        batch = self._prepare_inputs(inputs)
        for feature in self.features.values():
            batch = feature.batch(batch)
        loss = self.passes.micro_batch(model, batch)
        if self.passes.window.complete:
            for feature in self.features.values():
                feature.gradients(self.optimizer.param_groups[0]["lr"], self.passes.loss_scale)
        for feature in self.features.values():
            feature.loss_known(loss, self._where)
        return loss

    def _where(self) -> str:
        """Names the current step and micro-batch, with its rows where the sampler is ours."""
        micro, rows = len(self.passes.window.batches) - 1, micro_batch_rows(self)
        step = f"step {self.state.global_step + 1}"
        if self._sampler is None:
            return f"{step}, micro-batch {micro + 1}"
        micro_batches = len(self.callback_handler.train_dataloader)  # fewer where an incomplete one is dropped
        in_epoch = self.state.global_step % math.ceil(micro_batches / self.args.gradient_accumulation_steps)
        start = in_epoch * self._sampler.batch_size
        start += (micro * self.args.world_size + self.args.process_index) * rows
        order = self._sampler.order(self._sampler.epoch)[start : start + rows]
        batch = f"batch {in_epoch + 1} of epoch {self._sampler.epoch + 1}"
        return f"{step}, {batch} (training rows {', '.join(map(str, order))})"

    def one_pass(self, model: nn.Module, batch: Replay, whole: Size) -> Tensor:
        """Runs a forward and backward pass over a micro-batch; returns its share of the window's loss."""
        require_division(self)
        # The Trainer divides a micro-batch's loss by this; so the window's gradient is that of the mean over its rows,
        # also where the last micro-batch is smaller than the others.
        self.current_gradient_accumulation_steps = whole.rows / batch.rows
        self._pass = batch.size.weight(whole), batch.rows / whole.rows
        try:
            loss: Tensor = super().training_step(model, dict(batch.inputs))
        finally:
            self._pass = None
        return loss

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **kwargs: Any
    ) -> Any:
        """Computes the Trainer's loss, in training with the features' terms."""
        whole = dict(inputs)  # of which label smoothing takes the labels
        loss, outputs = super().compute_loss(model, without_added(inputs), return_outputs=True, **kwargs)
        if self._pass is not None:
            weight, share = self._pass
            if weight != 1:  # of what the head's loss is a mean over, in place of rows; 0 where nothing counts
                loss = loss * weight if weight else loss.nan_to_num(0.0) * 0.0
            terms = {"task": loss}
            for feature in self.features.values():
                terms = feature.terms(terms, outputs, whole, weight)
            self.passes.saw(outputs, whole, terms, share)
            for feature in self.features.values():
                feature.terms_known(terms, share * self.passes.loss_scale)
            loss = reduce(torch.add, terms.values())
        return (loss, outputs) if return_outputs else loss

    # What is measured and kept

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the passes so far and, for a flat optimizer, the mean ‖ε‖ and loss gap since the last log."""
        evaluated = any(key.startswith("eval_") for key in logs)
        if "loss" in logs:
            logs |= self.passes.logs()
        if "loss" in logs or evaluated:
            logs |= self.features.merged(lambda feature: feature.logs(evaluated))
        super().log(logs, start_time)

    def evaluation_loop(self, dataloader: Any, *args: Any, **kwargs: Any) -> Any:
        """Evaluates the model that training would end with now; ``score`` sees the split it scores."""
        with self.features.as_finished():
            self._check()
            self._scored_split = dataloader.dataset
            return super().evaluation_loop(dataloader, *args, **kwargs)

    def _check(self) -> None:
        for feature in self.features.values():
            feature.check()

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        for feature in self.features.values():
            feature.evaluated(self.state.global_step, metrics)
        ready = all(feature.ready for feature in self.features.values())
        return ready and super()._determine_best_metric(metrics, trial)

    def _finalize_training(self, *args: Any, **kwargs: Any) -> Any:
        for feature in self.features.values():
            feature.finish()
        return super()._finalize_training(*args, **kwargs)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        self.features.load_best(Path(self.state.best_model_checkpoint), self.state.best_global_step)

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        more = self.features.parameters(clipped=True)
        if not more:
            return super()._clip_grad_norm(model)
        return self.accelerator.clip_grad_norm_([*model.parameters(), *more], self.args.max_grad_norm)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self._check()
        with self.features.as_finished():
            self._check()
        with self.features.as_saved():
            super()._save_checkpoint(model, trial)

    def save_beside(self, checkpoint: Path) -> None:
        self.features.save(checkpoint)

    def passes_so_far(self) -> float:
        return self.passes.count

    def _init_training_state(self, max_steps: int, steps_per_epoch: int, epochs: int, resume: Any, *args: Any) -> Any:
        counts = super()._init_training_state(max_steps, steps_per_epoch, epochs, resume, *args)
        step = self.state.global_step
        resumed = Path(resume) if step else None
        self.features.begin(self.run_of(max_steps, steps_per_epoch), resumed, step)
        self.passes.count = 0 if resumed is None else checkpoints.read_flat(resumed).passes
        return counts
