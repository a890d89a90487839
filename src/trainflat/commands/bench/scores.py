"""Scores the timed models, whichever library runs them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoConfig

from trainflat.commands.bench.remote import Answers, Remote
from trainflat.commands.bench.variants import Opened
from trainflat.commands.export import row_length, task_for
from trainflat.core.errors import InputError
from trainflat.evaluation import main_score, predictions_of
from trainflat.models import read_tokenizer
from trainflat.models.checks import check_labels
from trainflat.models.classes import class_names
from trainflat.models.stored import read_config_json
from trainflat.tasks.base import Task


@dataclass(frozen=True)
class Scored:
    """Scores variants on a task."""

    task: Task

    def about(self) -> dict[str, Any]:
        """Returns the task's fields of a comparison."""
        prints = {name: one for name, one in self.task.fingerprints.items() if name == self.task.split}
        return {"task": self.task.name, "split": self.task.split, "metric": self.task.score_name, "data": prints}

    def score(self, one: Opened, remote: Remote) -> dict[str, Any]:
        """Scores a variant by the task's main metric on the whole split; returns its fields of a comparison.

        Raises:
            InputError: the model has no tokenizer beside it, or was fine-tuned on something else.
        """
        try:
            tokenizer = read_tokenizer(one.home)
            read_config_json(one.home)  # refuses what would take a config all memory to read
            config = AutoConfig.from_pretrained(one.home, trust_remote_code=False, local_files_only=True)
        except InputError:
            raise
        except Exception as error:  # of any kind
            raise InputError(f"{one.home} lacks config.json or a tokenizer, by which to score {one.name}.") from error
        check_labels(config, self.task.head, one.model)
        self._check_answers(one, remote)
        task = self.task.in_order(class_names(config)) if self.task.head.kind == "classification" else self.task
        length = row_length(task, getattr(config, "max_position_embeddings", None))
        split = task.encode(tokenizer, length)[1][task.split]
        model: Any = Answers(remote)
        found, answers = main_score(task, split, predictions_of(model, split, tokenizer))
        return {"score": found.value, "without": found.without, "remark": answers.remark() if answers else ""}

    def _check_answers(self, one: Opened, remote: Remote) -> None:
        """Refuses a file that was made of a model with another head."""
        remote.hold({name: np.ones((1, 8), dtype=np.int64) for name in ("input_ids", "attention_mask")})
        found = {name: answer.shape[1] for name, answer in remote.answer().items()}
        head = self.task.head
        wanted = {"start_logits": 8, "end_logits": 8} if head.kind == "spans" else {"logits": len(head.labels) or 1}
        if found != wanted:
            raise InputError(
                f"{one.name} answers with {_shown(found)}, {self.task.name} needs {_shown(wanted)}. "
                "Name the task that it was fine-tuned on."
            )


def read_task(section: Mapping[str, Any], model: Path, data: Path | None, seed: int = 0) -> Scored:
    """Builds the task to score on; raises as `task_for`."""
    return Scored(task_for(model, dict(section), data, seed))


def _shown(columns: Mapping[str, int]) -> str:
    return " and ".join(f"{count} {name}" for name, count in columns.items())
