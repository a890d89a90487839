"""Makes the Trainer's checkpoints whole or absent, and lets it delete only those that this run wrote."""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn
from transformers import Trainer

from trainflat.core.files import remove, write_json, writing
from trainflat.training import checkpoints
from trainflat.training.callbacks import patience_spent
from trainflat.training.hooks import output_folder


class SealedTrainer(Trainer):  # type: ignore[misc]
    """Seals checkpoints with a manifest of hashes, and resumes from sealed checkpoints only.

    Attributes:
        written: Steps of the checkpoints that this run wrote and that are still there.
        stopped_early: Whether it was resumed where early stopping had ended it.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.written: list[int] = []
        self.stopped_early = False

    @abstractmethod
    def save_beside(self, checkpoint: Path) -> None:
        """Writes the features' states into a checkpoint."""

    @abstractmethod
    def passes_so_far(self) -> float:
        """Counts the passes over a batch since step 0."""

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Runs ``Trainer.train``, resuming from sealed checkpoints only.

        Raises:
            InputError: the checkpoint to resume from is not one of FlatTrainer's, or not whole.
            DamagedFile: a file of it differs from what was written.
        """
        resume = checkpoints.to_resume(Path(self.args.output_dir), resume_from_checkpoint, self.args)
        return super().train(resume, *args, **kwargs)

    def _init_training_state(self, max_steps: int, steps_per_epoch: int, epochs: int, resume: Any, *args: Any) -> Any:
        counts = super()._init_training_state(max_steps, steps_per_epoch, epochs, resume, *args)
        self.written, self.stopped_early = [], False
        if self.state.global_step:
            self.written = checkpoints.read_flat(Path(resume)).written
            spent = patience_spent(self.callback_handler.callbacks)
            self.stopped_early = spent and self.args.restore_callback_states_from_checkpoint
            if self.state.best_global_step:  # the folder may have moved since
                best = checkpoints.path(Path(resume).parent, self.state.best_global_step)
                self.state.best_model_checkpoint = str(best)
        return counts

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        if self.stopped_early:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*args, **kwargs)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        step, folder = self.state.global_step, Path(output_folder(self, trial))
        checkpoint = checkpoints.path(folder, step)
        if self.args.should_save:
            remove(checkpoint)  # what another run left under this name would be mixed in
        self.accelerator.wait_for_everyone()
        with writing(checkpoint), self._limit_set_aside():
            super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            self.save_beside(checkpoint)
            self.written = [*(one for one in self.written if one != step), step]
            write_json(checkpoint / checkpoints.FLAT, {"passes": self.passes_so_far(), "written": self.written})
            checkpoints.finish(checkpoint)
            limit, best = self.args.save_total_limit, self.state.best_global_step
            self.written = checkpoints.rotate(folder, self.written, limit, best)
        self.accelerator.wait_for_everyone()

    def _finalize_training(self, trial: Any, *args: Any, **kwargs: Any) -> Any:
        with self._limit_set_aside():
            result = super()._finalize_training(trial, *args, **kwargs)
        best = self.state.best_global_step
        if self.args.save_total_limit == 1 and self.args.should_save and best in self.written:  # as the Trainer does
            self.written = checkpoints.rotate(Path(output_folder(self, trial)), [*self.written, best], 1, best)
        return result

    @contextmanager
    def _limit_set_aside(self) -> Iterator[None]:
        """Suspends ``save_total_limit`` for the block: the Trainer would delete other runs' checkpoints too."""
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            yield
        finally:
            self.args.save_total_limit = limit
