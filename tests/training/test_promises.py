"""Every argument of the Trainer and of its arguments works in FlatTrainer as there, or is refused by name.

A flat optimizer with a radius of 0 takes AdamW's steps, so a tiny run of it must end in the bits of the Trainer's.
"""

import dataclasses
import inspect
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import IterableDataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from tests.conftest import tiny_bert
from tests.support.fresh import run_fresh
from tests.support.plain_loop import collate, random_split
from trainflat.core.errors import InputError
from trainflat.optim import OPTIMIZERS
from trainflat.training import FlatArguments, FlatTrainer, given

BASE = {
    "max_steps": 4,
    "per_device_train_batch_size": 4,
    "report_to": "none",
    "disable_tqdm": True,
    "use_cpu": True,
    "save_strategy": "no",
    "logging_steps": 1,
    "seed": 3,
    "dataloader_pin_memory": False,
    "train_sampling_strategy": "sequential",
    "learning_rate": 1e-2,
}
EVAL = {"eval_strategy": "steps", "eval_steps": 2}
SAVE = {"save_strategy": "steps", "save_steps": 2}
BEST = EVAL | SAVE | {"load_best_model_at_end": True, "metric_for_best_model": "loss"}
ROWS = [random_split()[i] for i in range(24)]


@dataclasses.dataclass(frozen=True)
class Same:
    """Ends in the bits of the Trainer's run with the same settings, and logs the same numbers."""

    settings: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Refused:
    """Ends in one line that matches."""

    settings: dict[str, Any]
    message: str


@dataclasses.dataclass(frozen=True)
class Passed:
    """Nothing but the Trainer reads it, and trying it takes what a test has not, or shows nothing."""

    reason: str


def same(**settings: Any) -> Same:
    return Same(settings)


def unheard(**settings: Any) -> Refused:
    """Beside ``optimizer=``."""
    return Refused(settings, "would go unheard beside optimizer=.*in that mapping")


HUB = Passed("needs the hub")
PROCESSES = Passed("of several processes; see test_training_processes.py")
SAYS = Passed("of messages only")
Kind = Same | Refused | Passed

ARGUMENTS: dict[str, tuple[Kind, ...]] = {
    "output_dir": (same(),),
    "per_device_train_batch_size": (same(per_device_train_batch_size=8),),
    "num_train_epochs": (same(max_steps=-1, num_train_epochs=1.5),),
    "max_steps": (same(max_steps=7, num_train_epochs=1),),
    "learning_rate": (same(learning_rate=3e-3),),
    "lr_scheduler_type": (
        same(lr_scheduler_type="cosine"),
        same(lr_scheduler_type="reduce_lr_on_plateau", lr_scheduler_kwargs={"patience": 0, "threshold": 9.0}, **BEST),
    ),
    "lr_scheduler_kwargs": (same(lr_scheduler_type="polynomial", lr_scheduler_kwargs={"power": 2.0}),),
    "warmup_steps": (same(warmup_steps=2), same(warmup_steps=0.5)),
    "optim": (unheard(optim="adafactor"),),
    "optim_args": (unheard(optim_args="eps=1e-3"),),
    "optim_target_modules": (unheard(optim_target_modules="all-linear"),),
    "weight_decay": (unheard(weight_decay=0.1),),
    "adam_beta1": (unheard(adam_beta1=0.8),),
    "adam_beta2": (unheard(adam_beta2=0.9),),
    "adam_epsilon": (unheard(adam_epsilon=1e-3),),
    "gradient_accumulation_steps": (Passed("the Trainer's is wrong; see test_training_shares.py"),),
    "average_tokens_across_devices": (PROCESSES,),
    "max_grad_norm": (same(max_grad_norm=0.01), same(max_grad_norm=0.0)),
    "label_smoothing_factor": (same(label_smoothing_factor=0.2, **EVAL),),
    "bf16": (same(bf16=True),),
    "fp16": (Passed("needs a GPU"),),
    "bf16_full_eval": (same(bf16_full_eval=True, **EVAL),),
    "fp16_full_eval": (same(fp16_full_eval=True, **EVAL),),
    "tf32": (Passed("needs a GPU"),),
    "activation_checkpointing": (same(activation_checkpointing=True),),
    "activation_checkpointing_kwargs": (
        same(activation_checkpointing=True, activation_checkpointing_kwargs={"use_reentrant": False}),
    ),
    "gradient_checkpointing": (Passed("the older name of activation_checkpointing, with a warning"),),
    "gradient_checkpointing_kwargs": (Passed("the older name of activation_checkpointing_kwargs, with a warning"),),
    "torch_compile": (Passed("slow; see test_a_compiled_model"),),
    "torch_compile_backend": (Passed("slow; see test_a_compiled_model"),),
    "torch_compile_mode": (Passed("of compilers that a test has not the time for"),),
    "use_liger_kernel": (Passed("needs a GPU"),),
    "liger_kernel_config": (Passed("needs a GPU"),),
    "use_cache": (same(use_cache=True),),
    "neftune_noise_alpha": (same(neftune_noise_alpha=5.0),),
    "torch_empty_cache_steps": (same(torch_empty_cache_steps=1),),
    "auto_find_batch_size": (same(auto_find_batch_size=True),),
    "logging_strategy": (same(logging_strategy="no"), same(logging_strategy="epoch", max_steps=-1, num_train_epochs=1)),
    "logging_steps": (same(logging_steps=3),),
    "logging_first_step": (same(logging_steps=3, logging_first_step=True),),
    "log_on_each_node": (SAYS,),
    "logging_nan_inf_filter": (same(logging_nan_inf_filter=False),),
    "include_num_input_tokens_seen": (same(include_num_input_tokens_seen="all"),),
    "log_level": (SAYS,),
    "log_level_replica": (SAYS,),
    "disable_tqdm": (SAYS,),
    "report_to": (Passed("see test_training_trackers.py"),),
    "run_name": (same(run_name="a run"),),
    "project": (Passed("of trackers"),),
    "trackio_space_id": (Passed("of trackers"),),
    "trackio_bucket_id": (Passed("of trackers"),),
    "trackio_static_space_id": (Passed("of trackers"),),
    "eval_strategy": (same(**EVAL), same(eval_strategy="epoch", max_steps=-1, num_train_epochs=1)),
    "eval_steps": (same(**EVAL | {"eval_steps": 3}),),
    "eval_delay": (same(eval_delay=3, **EVAL | {"eval_steps": 1}),),
    "per_device_eval_batch_size": (same(per_device_eval_batch_size=5, **EVAL),),
    "prediction_loss_only": (same(prediction_loss_only=True, **EVAL),),
    "eval_on_start": (same(eval_on_start=True, **EVAL),),
    "eval_do_concat_batches": (
        same(eval_do_concat_batches=False, **EVAL),
        Refused({"eval_do_concat_batches": False, "score": dict}, "score takes whole predictions .* and not eval_do_c"),
    ),
    "eval_use_gather_object": (same(eval_use_gather_object=True, **EVAL),),
    "eval_accumulation_steps": (same(eval_accumulation_steps=1, **EVAL),),
    "include_for_metrics": (same(include_for_metrics=["inputs", "loss"], compute_metrics="of inputs", **EVAL),),
    "batch_eval_metrics": (
        same(batch_eval_metrics=True, compute_metrics="by batch", **EVAL),
        Refused({"batch_eval_metrics": True, "score": dict}, "score takes whole predictions .* and not batch_eval_met"),
    ),
    "save_only_model": (same(save_only_model=True, **BEST),),
    "save_strategy": (same(**SAVE), same(**BEST | {"save_strategy": "best"}), same(save_strategy="epoch")),
    "save_steps": (same(**SAVE | {"save_steps": 3}),),
    "save_on_each_node": (same(save_on_each_node=True, **SAVE),),
    "save_total_limit": (same(save_total_limit=1, **SAVE), same(save_total_limit=1, **BEST)),
    "enable_jit_checkpoint": (same(enable_jit_checkpoint=True, **SAVE),),
    "push_to_hub": (HUB,),
    "hub_token": (HUB,),
    "hub_private_repo": (HUB,),
    "hub_model_id": (HUB,),
    "hub_strategy": (
        Refused({"push_to_hub": True, "hub_strategy": "checkpoint"}, "hub_strategy 'checkpoint' would push .* whole"),
        Refused({"push_to_hub": True, "hub_strategy": "all_checkpoints"}, "hub_strategy 'all_checkpoints' would push"),
    ),
    "hub_always_push": (HUB,),
    "hub_revision": (HUB,),
    "load_best_model_at_end": (same(**BEST),),
    "metric_for_best_model": (same(**BEST | {"metric_for_best_model": "eval_loss"}),),
    "greater_is_better": (same(**BEST, greater_is_better=True),),
    "ignore_data_skip": (Passed("of resuming; see test_resuming_as_there"),),
    "restore_callback_states_from_checkpoint": (Passed("of resuming; see test_training_checkpoints.py"),),
    "full_determinism": (same(full_determinism=True),),
    "seed": (same(seed=11),),
    "data_seed": (same(data_seed=11),),
    "use_cpu": (same(use_cpu=True),),
    "accelerator_config": (same(accelerator_config={"use_seedable_sampler": False, "even_batches": False}),),
    "parallelism_config": (Passed("refused; see test_parallelism_is_refused"),),
    "dataloader_drop_last": (
        same(dataloader_drop_last=True, max_steps=-1, num_train_epochs=2),
        Refused(
            {"dataloader_drop_last": True, "score": dict}, "score takes whole predictions .* and not dataloader_dr"
        ),
    ),
    "dataloader_num_workers": (same(dataloader_num_workers=1),),
    "dataloader_pin_memory": (Passed("needs a GPU"),),
    "dataloader_persistent_workers": (same(dataloader_num_workers=1, dataloader_persistent_workers=True),),
    "dataloader_prefetch_factor": (same(dataloader_num_workers=1, dataloader_prefetch_factor=3),),
    "dataloader_multiprocessing_context": (same(dataloader_num_workers=1, dataloader_multiprocessing_context="fork"),),
    "dataloader_in_order": (same(dataloader_num_workers=1, dataloader_in_order=True),),
    "remove_unused_columns": (
        same(remove_unused_columns=True, rows="with a column too many"),
        same(remove_unused_columns=False),
    ),
    "label_names": (same(label_names=["labels"], **EVAL),),
    "train_sampling_strategy": (
        same(train_sampling_strategy="random", rows="without lengths", data_collator=None),
        same(train_sampling_strategy="batch_rebalance"),
        Refused(
            {"train_sampling_strategy": "group_by_length", "score": dict},
            "score takes whole predictions in the order of the rows, and not train_sampling_strategy='group_by_length'",
        ),
    ),
    "length_column_name": (Passed("see test_rows_are_grouped_by_the_column_that_is_named"),),
    "ddp_find_unused_parameters": (PROCESSES,),
    "ddp_bucket_cap_mb": (PROCESSES,),
    "ddp_broadcast_buffers": (PROCESSES,),
    "ddp_static_graph": (PROCESSES,),
    "ddp_backend": (PROCESSES,),
    "ddp_timeout": (PROCESSES,),
    "fsdp": (Passed("refused; see test_sharding_is_refused"),),
    "fsdp_config": (Passed("refused with fsdp"),),
    "deepspeed": (Passed("refused; see test_sharding_is_refused"),),
    "debug": (Passed("underflow_overflow fails on BERT in the Trainer too"),),
    "skip_memory_metrics": (same(skip_memory_metrics=True),),
    "do_train": (Passed("of scripts"),),
    "do_eval": (Passed("of scripts"),),
    "do_predict": (Passed("of scripts"),),
    "resume_from_checkpoint": (Passed("of scripts"),),
    "local_rank": (PROCESSES,),
}


class Stopping(TrainerCallback):
    """Of the user's."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = state.global_step == 3


class Stream(IterableDataset):
    """Rows without a length."""

    def __iter__(self) -> Any:
        return iter(ROWS)


def sum_over_items(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
    """A loss of the user's, which needs the number."""
    return torch.nn.functional.cross_entropy(outputs.logits, labels, reduction="sum") / num_items_in_batch


def accuracy(found: Any) -> dict[str, float]:
    return {"accuracy": float((found.predictions.argmax(-1) == found.label_ids).mean())}


def of_inputs(found: Any) -> dict[str, float]:
    return {"longest": float(found.inputs.shape[1]), "mean": float(np.mean(found.losses))}


def by_batch(found: Any, compute_result: bool) -> dict[str, float]:
    return {"last": float(found.predictions.shape[0])}


PARTS: dict[str, tuple[Kind, ...]] = {
    "self": (Passed("no argument"),),
    "model": (same(),),
    "args": (same(args="plain"),),
    "data_collator": (same(data_collator=None, rows="of one length"),),
    "train_dataset": (same(train_dataset=Stream()), same(train_dataset=Stream(), max_steps=13)),
    "eval_dataset": (
        same(eval_dataset={"one": ROWS[:5], "two": ROWS[5:12]}, **EVAL),
        same(eval_dataset=Stream(), **EVAL),
    ),
    "processing_class": (same(processing_class=None),),
    "model_init": (same(model_init=True),),
    "compute_loss_func": (same(compute_loss_func=sum_over_items, **EVAL),),
    "compute_metrics": (
        same(compute_metrics=accuracy, **EVAL),
        Refused({"compute_metrics": accuracy, "score": dict}, "and not compute_metrics. Leave it out"),
    ),
    "callbacks": (same(callbacks=[Stopping]),),
    "optimizers": (Refused({"optimizers": "an optimizer"}, "optimizers would go unheard beside optimizer="),),
    "optimizer_cls_and_kwargs": (unheard(optimizer_cls_and_kwargs=(torch.optim.SGD, {"lr": 0.1})),),
    "preprocess_logits_for_metrics": (
        same(preprocess_logits_for_metrics=lambda logits, labels: -logits, compute_metrics=accuracy, **EVAL),
    ),
}
TRAIN: dict[str, tuple[Kind, ...]] = {
    "self": (Passed("no argument"),),
    "resume_from_checkpoint": (Passed("see test_resuming_as_there and test_training_checkpoints.py"),),
    "trial": (Passed("of hyperparameter_search; see test_a_trial_writes_into_its_own_folder"),),
    "ignore_keys_for_eval": (same(train={"ignore_keys_for_eval": ["hidden_states"]}, **EVAL),),
}


def of_rows(given: str | None) -> list[dict[str, Any]]:
    if given == "without lengths":
        return [{"inputs_embeds": torch.full((3, 16), i / 24), "labels": i % 2} for i in range(24)]
    if given == "of one length":
        return [{"input_ids": row["input_ids"][:3], "labels": row["labels"]} for row in ROWS]
    if given == "with a column too many":
        return [row | {"note": "text"} for row in ROWS]
    return ROWS


def trainer_of(kind: type[Trainer], folder: Path, **settings: Any) -> Trainer:
    """A tiny run; what is no argument of the arguments is one of the Trainer."""
    known = {field.name for field in dataclasses.fields(TrainingArguments)}
    settings = BASE | settings
    parts = {key: value for key, value in settings.items() if key not in known}
    flat = kind is FlatTrainer
    kind_of_args = FlatArguments if flat and parts.pop("args", None) is None else TrainingArguments
    parts.pop("args", None)
    args = kind_of_args(**{"output_dir": str(folder)} | {k: v for k, v in settings.items() if k in known})
    rows = of_rows(parts.pop("rows", None))
    metrics = parts.get("compute_metrics")
    if isinstance(metrics, str):
        parts["compute_metrics"] = {"of inputs": of_inputs, "by batch": by_batch}[metrics]
    whole: dict[str, Any] = {"train_dataset": rows, "eval_dataset": rows[:10], "data_collator": collate} | parts
    new = tiny_bert if whole.pop("model_init", None) is None else None
    whole |= {"model": new(hidden_dropout_prob=0.1)} if new else {"model_init": lambda: tiny_bert(seed=5)}
    if whole.get("optimizers"):
        whole["optimizers"] = torch.optim.SGD(whole["model"].parameters(), 0.1), None
    if flat:
        whole["optimizer"] = {"name": "sam", "rho": 0.0, "base": "adamw", "weight_decay": 0.0}
    return kind(args=args, **whole)


def ended(kind: type[Trainer], folder: Path, **settings: Any) -> tuple[Trainer, list[dict[str, Any]]]:
    how = settings.pop("train", {})
    trainer = trainer_of(kind, folder, **settings)
    trainer.train(**how)
    clocks = ("runtime", "per_second", "preparation", "passes", "perturbation", "loss_gap")
    logs = [{k: v for k, v in e.items() if not any(c in k for c in clocks)} for e in trainer.state.log_history]
    return trainer, logs


def assert_same(folder: Path, **settings: Any) -> None:
    (plain, expected), (flat, logs) = (
        ended(kind, folder / name, **settings) for kind, name in [(Trainer, "plain"), (FlatTrainer, "flat")]
    )
    assert flat.state.global_step == plain.state.global_step > 0
    for (name, p), q in zip(plain.model.named_parameters(), flat.model.parameters(), strict=True):
        assert torch.equal(p, q), name
    assert logs == expected
    written = [{p.name for p in (folder / name).glob("checkpoint-*")} for name in ("plain", "flat")]
    assert written[0] == written[1]


def cases(table: dict[str, tuple[Kind, ...]], known: set[str], kind: type) -> list[Any]:
    return [
        pytest.param(case, id=f"{name}-{number}")
        for name, listed in table.items()
        for number, case in enumerate(listed)
        if name in known and isinstance(case, kind)
    ]


OF_ARGUMENTS = {field.name for field in dataclasses.fields(TrainingArguments)}
OF_TRAINER = set(inspect.signature(Trainer.__init__).parameters)
OF_TRAIN = set(inspect.signature(Trainer.train).parameters)
TABLES = [(ARGUMENTS, OF_ARGUMENTS), (PARTS, OF_TRAINER), (TRAIN, OF_TRAIN)]


def all_cases(kind: type) -> list[Any]:
    return [case for table, known in TABLES for case in cases(table, known, kind)]


@pytest.mark.parametrize(("table", "known"), TABLES, ids=["TrainingArguments", "Trainer", "train"])
def test_no_argument_is_unknown(table: dict[str, Any], known: set[str]) -> None:
    unlisted = sorted(known - set(table))
    assert not unlisted, (
        f"transformers takes {', '.join(unlisted)}, which tests/training/test_promises.py does not list"
    )


IN_A_FRESH_PROCESS = f"""
import json, runpy, sys
from pathlib import Path
tests = runpy.run_path({str(Path(__file__))!r})
tests["assert_same"](Path(sys.argv[1]), **json.loads(sys.argv[2]))
"""


@pytest.mark.parametrize("case", all_cases(Same))
def test_works_as_in_the_trainer(case: Same, tmp_path: Path, recwarn: Any) -> None:
    if "dataloader_num_workers" in case.settings:
        # Forks a worker. Of two whole suites a pytest worker vanished here without a word, for a reason not found; in
        # a fresh process there is less that a fork could trip over, and its end is seen.
        done = run_fresh(tmp_path, json.dumps(case.settings), code=IN_A_FRESH_PROCESS)
        assert done.returncode == 0, done.stderr
    else:
        assert_same(tmp_path, **case.settings)


@pytest.mark.parametrize("case", all_cases(Refused))
def test_is_refused_by_name(case: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "init_hf_repo", lambda self, *args, **kwargs: None)
    with pytest.raises(InputError, match=case.message) as error:
        trainer_of(FlatTrainer, tmp_path, **case.settings).train()
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_compiled_model(tmp_path: Path) -> None:
    assert_same(tmp_path, torch_compile=True, torch_compile_backend="eager", max_steps=2)


def test_parallelism_is_refused(tmp_path: Path) -> None:
    trainer = trainer_of(FlatTrainer, tmp_path)
    trainer.args.parallelism_config = object()
    with pytest.raises(InputError, match="nor is parallelism_config"):
        given.refuse_sharding(trainer)
    trainer.args.parallelism_config, trainer.args._n_gpu = None, 2
    with pytest.raises(InputError, match=r"one GPU per process, and this process sees 2\. Start it with torchrun"):
        given.refuse_sharding(trainer)


@pytest.mark.parametrize("ignored", [False, True])
def test_resuming_as_there(tmp_path: Path, ignored: bool) -> None:
    logs = []
    for kind in (Trainer, FlatTrainer):
        folder = tmp_path / kind.__name__
        ended(kind, folder, **SAVE | {"max_steps": 8})
        shutil.rmtree(folder / "checkpoint-8")
        how = {"train": {"resume_from_checkpoint": True}, "ignore_data_skip": ignored}
        logs.append(ended(kind, folder, **SAVE | {"max_steps": 8, "save_steps": 3}, **how))
    assert [{k: v for k, v in e.items() if k != "train_loss"} for e in logs[1][1]] == [
        {k: v for k, v in e.items() if k != "train_loss"} for e in logs[0][1]
    ]


def test_training_twice_evaluating_before_and_predicting_after(tmp_path: Path) -> None:
    found = []
    for kind in (Trainer, FlatTrainer):
        trainer = trainer_of(kind, tmp_path / kind.__name__, compute_metrics=accuracy)
        scores = [trainer.evaluate()["eval_loss"]]
        trainer.train()
        trainer.train()
        scores += [trainer.evaluate()["eval_loss"], *trainer.predict(ROWS[:5]).predictions.flatten().tolist()]
        found.append(scores)
    assert found[0] == found[1]


def test_a_smaller_batch_is_found_when_memory_runs_out(tmp_path: Path) -> None:
    """The attempt that failed half-way through its passes leaves nothing behind: θ is taken from weights."""
    options = {"auto_find_batch_size": True, "max_steps": 2, "learning_rate": 1e-9}
    trainer = trainer_of(FlatTrainer, tmp_path, reparametrization="powerprop", **options)
    before = {name: p.clone() for name, p in trainer.model.named_parameters()}
    compute = trainer.compute_loss

    def full(model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if len(inputs["labels"]) > 2:
            raise RuntimeError("CUDA out of memory.")
        return compute(model, inputs, *args, **kwargs)

    trainer.compute_loss = full
    trainer.train()
    assert trainer._train_batch_size <= 2
    for name, p in trainer.model.named_parameters():
        torch.testing.assert_close(p, before[name], rtol=1e-5, atol=1e-7)


def test_a_trial_writes_into_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "_get_output_dir", lambda self, trial: str(tmp_path / "run-3"))
    trainer_of(FlatTrainer, tmp_path, **SAVE | {"save_total_limit": 1}).train()
    assert [p.name for p in (tmp_path / "run-3").iterdir()] == ["checkpoint-4"]
    assert not list(tmp_path.glob("checkpoint-*"))


def test_a_checkpoint_on_demand_can_be_resumed_from(tmp_path: Path) -> None:
    """That of ``enable_jit_checkpoint``, which the Trainer writes between its own."""
    trainer = trainer_of(FlatTrainer, tmp_path, enable_jit_checkpoint=True)
    [jit] = [c.jit_manager for c in trainer.callback_handler.callbacks if hasattr(c, "jit_manager")]

    class Asked(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            jit.is_checkpoint_requested = state.global_step == 2

    trainer.callback_handler.callbacks.insert(0, Asked())
    trainer.train()
    assert trainer.state.global_step == 2
    again = trainer_of(FlatTrainer, tmp_path)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 4


def test_rows_are_grouped_by_the_column_that_is_named(tmp_path: Path) -> None:
    from datasets import Dataset

    rows = Dataset.from_list([row | {"words": 30 - i} for i, row in enumerate(ROWS)])
    grouped = {"train_sampling_strategy": "group_by_length", "length_column_name": "words"}
    sampler = trainer_of(FlatTrainer, tmp_path, train_dataset=rows, **grouped)._get_train_sampler()
    assert sampler.lengths.tolist() == [30 - i for i in range(24)]


@pytest.mark.parametrize("own", [{"label_smoothing_factor": 0.1}, {"compute_loss_func": sum_over_items}])
def test_rows_are_not_chosen_by_a_loss_that_tells_none(tmp_path: Path, own: dict[str, Any]) -> None:
    trainer = trainer_of(FlatTrainer, tmp_path, **own)
    trainer.optimizer_recipe = OPTIMIZERS.read("esam")
    with pytest.raises(InputError, match="ESAM chooses rows by their losses, and label smoothing and a loss function"):
        trainer.train()
