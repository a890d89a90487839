"""Refuses by name the Trainer's arguments that FlatTrainer cannot honour, and prepares the others."""

import dataclasses
from typing import Any

from accelerate.utils import extract_model_from_parallel
from torch import nn
from transformers import Trainer

from trainflat.core.errors import InputError
from trainflat.core.settings import Settings
from trainflat.optim import FlatOptimizer
from trainflat.training.arguments import FlatArguments

# An optimizer that is named takes its options from its own mapping; these would go unheard.
_OF_THE_OPTIMIZER = (
    *("optim", "optim_args", "optim_target_modules"),
    *("weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon"),
)


def complete(args: Any) -> None:
    """Gives plain ``TrainingArguments`` the fields that FlatArguments adds, at their defaults."""
    for field in dataclasses.fields(FlatArguments):
        if not hasattr(args, field.name):
            setattr(args, field.name, field.default)


def refuse_sharding(trainer: Trainer) -> None:
    """Raises InputError where the model or a batch would be split over devices (FSDP, DeepSpeed, DataParallel)."""
    args, loaded = trainer.args, getattr(trainer, "is_distributed_loading_by_transformers", False)
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled or args.parallelism_config is not None or loaded:
        raise InputError(
            "FlatTrainer does not shard models: FSDP and DeepSpeed are not supported, nor is parallelism_config. "
            "Use data parallel (torchrun)."
        )
    if args.n_gpu > 1:
        raise InputError(
            f"FlatTrainer trains on one GPU per process, and this process sees {args.n_gpu}. Start it with torchrun "
            f"--nproc-per-node {args.n_gpu}, or set CUDA_VISIBLE_DEVICES=0."
        )


def refuse_unheard(trainer: Trainer, recipe: Settings | None, score: Any) -> None:
    """Raises InputError for arguments that another one overrides, or that would give ``score`` wrong predictions."""
    args = trainer.args
    if args.push_to_hub and args.hub_strategy in ("checkpoint", "all_checkpoints"):
        raise InputError(
            f"hub_strategy {args.hub_strategy.value!r} would push checkpoints before they are whole. Use every_save."
        )
    unheard = [] if recipe is None else _unheard_by_optimizer(trainer)
    if recipe is not None and unheard:
        raise InputError(
            f"{' and '.join(unheard)} would go unheard beside optimizer={_as_given(recipe)}. Leave them out, or give "
            "the options in that mapping."
        )
    wrong = [] if score is None else _wrong_with_score(trainer)
    if wrong:
        raise InputError(f"score takes whole predictions in the order of the rows, and not {wrong[0]}. Leave it out.")


def _as_given(settings: Settings) -> dict[str, Any]:
    given = {"name", *settings.model_fields_set}
    return {key: value for key, value in settings.section().items() if key in given}


def _unheard_by_optimizer(trainer: Trainer) -> list[str]:
    defaults = {field.name: field.default for field in dataclasses.fields(FlatArguments)}
    given = [name for name in _OF_THE_OPTIMIZER if getattr(trainer.args, name) != defaults[name]]
    given += ["optimizers"] if trainer.optimizer is not None else []
    return given + (["optimizer_cls_and_kwargs"] if trainer.optimizer_cls_and_kwargs is not None else [])


def _wrong_with_score(trainer: Trainer) -> list[str]:
    args = trainer.args
    found = {
        "compute_metrics": trainer.compute_metrics is not None,
        "batch_eval_metrics": args.batch_eval_metrics,
        "dataloader_drop_last": args.dataloader_drop_last,
        "eval_do_concat_batches=False": not args.eval_do_concat_batches,
        "train_sampling_strategy='group_by_length'": args.train_sampling_strategy == "group_by_length",
    }
    return [name for name, given in found.items() if given]


def refuse_without_rows(trainer: Trainer, flat: FlatOptimizer | None) -> None:
    """Raises InputError where the optimizer selects rows by their losses, and the loss function has only a mean."""
    own = trainer.label_smoother is not None or trainer.compute_loss_func is not None
    if flat is not None and flat.second_share < 1 and own:
        raise InputError(
            f"{type(flat).__name__} chooses rows by their losses, and label smoothing and a loss function of one's own "
            "have only a mean. Leave these out, or set gamma to 1."
        )


def unprepared(model: nn.Module) -> None:
    """Removes what an earlier Trainer wrapped around the model's forward pass, such as autocast, and accelerate's mark.

    accelerate prepares no model that bears the mark: a second training would keep the precision of the first, or have
    none at all.
    """
    extract_model_from_parallel(model, keep_fp32_wrapper=False)
    vars(model).pop("_is_accelerate_prepared", None)
