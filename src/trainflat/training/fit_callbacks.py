"""Callbacks of a recipe's training: report progress, delete old checkpoints."""

from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from trainflat.core.progress import Progress
from trainflat.training import checkpoints
from trainflat.training.sealed import SealedTrainer


class ProgressCallback(TrainerCallback):  # type: ignore[misc]
    """Reports the number of finished steps, with the latest loss and score."""

    def __init__(self, progress: Progress, stage: str) -> None:
        self.progress, self.stage, self.note = progress, stage, ""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.progress.begin(f"training {self.stage}", state.max_steps, state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        scores = [f"{k.split('_')[-1]} {v:z.1f}" for k, v in (logs or {}).items() if k == args.metric_for_best_model]
        self.note = " ".join(([f"loss {logs['loss']:.3f}"] if logs and "loss" in logs else []) + scores) or self.note

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.progress.advance(state.global_step, self.note)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.progress.end()


class NewestAndBest(TrainerCallback):  # type: ignore[misc]
    """Deletes all checkpoints but two: a run resumes from the newest, and ends with the best."""

    def __init__(self, trainer: SealedTrainer) -> None:
        self.trainer = trainer

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            checkpoints.rotate(Path(args.output_dir), self.trainer.written, 1, state.best_global_step)
