"""Trains one model from beginning to end: what a protocol calls for every stage."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import DataCollatorWithPadding, EarlyStoppingCallback, PrinterCallback, TrainerCallback

from trainflat.core.errors import InputError
from trainflat.core.files import remove
from trainflat.core.formatting import plural
from trainflat.core.progress import Progress
from trainflat.models import no_bars
from trainflat.pruning import Masks
from trainflat.records import run as record
from trainflat.tasks.base import EncodedSplit, Task
from trainflat.training import checkpoints
from trainflat.training.arguments import FlatArguments
from trainflat.training.fit_callbacks import NewestAndBest, ProgressCallback
from trainflat.training.given import unprepared
from trainflat.training.options import TrainingOptions
from trainflat.training.trainer import FlatTrainer

_SCHEDULES = {"linear": "linear", "constant": "constant_with_warmup", "cosine": "cosine"}
# The Trainer logs these beside the numbers that a repeated run reproduces.
_CLOCKS = ("runtime", "per_second", "preparation_time", "flos")


@dataclass(frozen=True)
class Fitted:
    """Holds the result of a training; the model has the weights that ``training`` describes, and computes in float."""

    training: record.Training
    seconds: float
    masks: Masks | None  # those that were given, or that a gate found
    products: Mapping[str, Any]  # by a feature's key, what it leaves for the stage beside the model


def fit(
    model: torch.nn.Module,
    tokenizer: Any,
    task: Task,
    train: EncodedSplit,
    evaluation: Mapping[str, EncodedSplit],
    *,
    options: TrainingOptions,
    folder: Path,
    seed: int,
    features: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Fitted:
    """Trains a model in place and leaves it with its best weights by the task's metric, as ``options`` say.

    Killed at any moment and called again with the same arguments, it continues from its newest checkpoint to the same
    bits.

    Args:
        folder: Holds the checkpoints; named by the stage, deleted when its result is safe (see ``forget``).
        features: Settings of features by key, beside those of ``options``, which they replace: what a protocol adds.

    Raises:
        InputError: options that this machine or task cannot follow.
        DamagedFile: a checkpoint is not what was written.
        TrainingDiverged: the loss stopped being a number.
    """
    arguments = training_arguments(options, task, folder, seed)
    trainer = FlatTrainer(
        model,
        arguments,
        train_dataset=train,
        eval_dataset=dict(evaluation),
        data_collator=DataCollatorWithPadding(tokenizer),
        optimizer=options.optimizer,
        score=task.score,
        callbacks=_callbacks(progress or Progress(), folder.name, options),
        **options.features() | dict(features or {}),
    )
    trainer.add_callback(NewestAndBest(trainer))
    trainer.remove_callback(PrinterCallback)
    started = time.perf_counter()
    _train(trainer, checkpoints.newest(folder))
    products = {key: feature.product for key, feature in trainer.features.items()}
    return Fitted(_summary(trainer, options), time.perf_counter() - started, trainer.masks, products)


def _train(trainer: FlatTrainer, checkpoint: Path | None) -> None:
    """Trains from a checkpoint or the beginning; afterwards nothing of the training is left around the model."""
    try:
        with no_bars():
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    finally:
        trainer.release()
    unprepared(trainer.model)  # it would compute in half precision for good, which loading its folder does not
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.free_memory()


def _callbacks(progress: Progress, stage: str, options: TrainingOptions) -> list[TrainerCallback]:
    callbacks: list[TrainerCallback] = [ProgressCallback(progress, stage)]
    if options.patience is not None:
        callbacks.append(EarlyStoppingCallback(options.patience))
    return callbacks


def forget(folder: Path) -> None:
    """Deletes the checkpoints of a training whose result is safe."""
    for checkpoint in folder.glob("checkpoint-*"):
        remove(checkpoint)
    remove(folder)


def training_arguments(options: TrainingOptions, task: Task, folder: Path, seed: int) -> FlatArguments:
    """Converts a recipe's training section into the Trainer's arguments.

    Raises:
        InputError: the batch cannot be cut over the processes, or fp16 without a GPU.
    """
    if options.precision == "fp16" and not torch.cuda.is_available():
        raise InputError("training.precision fp16 needs a GPU (a CPU would silently train in fp32). Use fp32 or bf16.")
    return FlatArguments(
        **_device_arguments(options),
        output_dir=str(folder),
        seed=seed,
        data_seed=seed,
        perturb_over=options.perturb_over,
        sync_perturbation=options.sync_perturbation,
        length_grouped=options.batching == "length",
        remove_unused_columns=False,
        **_step_arguments(options),
        **_selection_arguments(options, task),
        **_logging_arguments(options),
    )


def _step_arguments(options: TrainingOptions) -> dict[str, Any]:
    return {
        "num_train_epochs": options.epochs,
        "gradient_accumulation_steps": options.accumulate,
        "learning_rate": options.optimizer.lr,
        "lr_scheduler_type": _SCHEDULES[options.schedule],
        "warmup_steps": options.warmup,
        "max_grad_norm": options.max_grad_norm,
    }


def _selection_arguments(options: TrainingOptions, task: Task) -> dict[str, Any]:
    every: dict[str, Any] = {"eval_strategy": "epoch", "save_strategy": "epoch"}
    if options.evaluate_every != "epoch":
        n = options.evaluate_every
        every = {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": n, "save_steps": n}
    return every | {
        "load_best_model_at_end": options.keep == "best",
        "metric_for_best_model": f"eval_{task.split}_{task.metric}",
        "greater_is_better": True,
        "restore_callback_states_from_checkpoint": True,  # the patience used up so far
    }


def _logging_arguments(options: TrainingOptions) -> dict[str, Any]:
    return {
        "logging_strategy": "steps",
        "logging_steps": options.log_every,
        "logging_nan_inf_filter": False,
        "report_to": list(options.report_to) or "none",
        "disable_tqdm": True,
    }


def _device_arguments(options: TrainingOptions) -> dict[str, Any]:
    processes, cuda = int(os.environ.get("WORLD_SIZE", "1")), torch.cuda.is_available()
    return {
        "per_device_train_batch_size": _micro_batch(options, processes),
        "per_device_eval_batch_size": 64,
        "bf16": options.precision == "bf16",
        "fp16": options.precision == "fp16",
        "dataloader_pin_memory": cuda,
        "ddp_find_unused_parameters": False,
        "ddp_backend": "gloo" if processes > 1 and not cuda else None,
        "use_cpu": not cuda,
    }


def _micro_batch(options: TrainingOptions, processes: int) -> int:
    parts = options.accumulate * processes
    if options.batch_size % parts:
        raise InputError(
            f"training.batch_size {options.batch_size} cannot be cut into {options.accumulate} micro-batches "
            f"on {plural(processes, 'process', 'processes')}. Choose a multiple."
        )
    return options.batch_size // parts


def _summary(trainer: FlatTrainer, options: TrainingOptions) -> record.Training:
    state = trainer.state
    curve, evaluations = [], []
    for entry in state.log_history:
        kept = {key: float(value) for key, value in entry.items() if not any(clock in key for clock in _CLOCKS)}
        if "loss" in entry:
            curve.append(kept)
        elif any(key.startswith("eval_") for key in entry):
            evaluations.append({_slashed(key, trainer): value for key, value in kept.items()})
    found = trainer.features.merged(lambda feature: feature.record())
    known = {key: found.pop(key) for key in record.Training.model_fields if key in found}
    return record.Training(
        optimizer=options.optimizer.name,
        steps=state.global_step,
        epochs=float(state.epoch or 0),
        passes=trainer.passes.count,
        best_step=state.best_global_step if options.keep == "best" else None,
        curve=curve,
        evaluations=evaluations,
        **known,
        features=found or None,
    )


def _slashed(key: str, trainer: FlatTrainer) -> str:
    """Rewrites the Trainer's ``eval_validation_f1`` as ``validation/f1``."""
    for split in trainer.eval_dataset:
        prefix = f"eval_{split}_"
        if key.startswith(prefix):
            return f"{split}/{key.removeprefix(prefix)}"
    return key
