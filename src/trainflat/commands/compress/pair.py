"""Compares a compressed model with its original: scores, answers in common, and times taken in turn."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trainflat.core.errors import InputError
from trainflat.core.formatting import plural
from trainflat.core.margins import Answers, Difference, Score, difference
from trainflat.core.progress import Progress
from trainflat.core.timing import Candidate, Spread, alternate, ratio, seconds, spread
from trainflat.evaluation import compare_answers, main_score, predictions_of
from trainflat.evaluation.modes import evaluating
from trainflat.models import max_positions, vocabulary_size
from trainflat.records.compression import Goal
from trainflat.tasks.base import EncodedSplit, Predictions, Task

_NEAR = 0.1  # by which a measured time may miss a goal before it is said: as much as a search tolerates and times vary
_LATER = "Where other programs were running, try again when they are not, or ask for a little more."


@dataclass(frozen=True)
class Shape:
    """What is timed: rows, tokens per row, and torch's threads."""

    batch: int
    length: int
    threads: int

    def __str__(self) -> str:
        return f"{self.batch} × {plural(self.length, 'token')} on {plural(self.threads, 'thread')}"

    def check(self, model: PreTrainedModel) -> None:
        """Raises InputError where a size is not positive, or the model has no positions for the length."""
        for name, value in vars(self).items():
            if value < 1:
                raise InputError(f"--{name} is at least 1, got {value}.")
        positions = max_positions(model)
        if positions is not None and self.length > positions:
            raise InputError(f"--length {self.length}: the model has positions for {plural(positions, 'token')}.")


@dataclass(frozen=True)
class Speed:
    """Milliseconds of one forward pass of both models, and the ratio of one round's times."""

    before: float
    after: float
    ratio: Spread

    def missed(self, goal: Goal) -> str:
        """Says by how much a goal of time was missed, where that is more than a tenth; else nothing."""
        if goal.kind == "latency" and self.after > (1 + _NEAR) * goal.value:
            return f"{goal} was missed: {self.after:.3g} ms beside the original's {self.before:.3g} ms. {_LATER}"
        if goal.kind == "speedup" and self.ratio.value < (1 - _NEAR) * goal.value:
            return f"{goal} was missed: {self.ratio.value:.3g} times as fast. {_LATER}"
        return ""


def compare_speed(before: PreTrainedModel, after: PreTrainedModel, shape: Shape, rounds: int = 7) -> Speed:
    """Times two models in turn on the same random tokens without padding."""
    words = min(vocabulary_size(before), vocabulary_size(after))
    ids = torch.randint(words, (shape.batch, shape.length), generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with using_threads(shape.threads), evaluating(before), evaluating(after):
        taken = alternate(
            {"before": Candidate(lambda: before(**inputs)), "after": Candidate(lambda: after(**inputs))},
            rounds,
            patience=10.0,
        )
    one, other = (seconds(taken[name]) for name in ("before", "after"))
    return Speed(1e3 * spread(one).value, 1e3 * spread(other).value, ratio(one, other))


@contextmanager
def using_threads(count: int) -> Iterator[None]:
    """Lets torch use so many threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Reading:
    """Holds an evaluation split as one tokenizer reads it."""

    split: EncodedSplit
    tokenizer: PreTrainedTokenizerBase

    def predictions(self, model: PreTrainedModel) -> Predictions:
        return predictions_of(model, self.split, self.tokenizer)

    def batches(self, order: Sequence[int], size: int = 32) -> Iterator[dict[str, Tensor]]:
        """Yields padded rows in an order of the data set, whatever order the split has."""
        places = {number: i for i, number in enumerate(self.split.order or range(len(self.split)))}
        names = [name for name in self.tokenizer.model_input_names if name in self.split[0]]
        for start in range(0, len(order), size):
            rows = [self.split[places[number]] for number in order[start : start + size]]
            yield dict(self.tokenizer.pad({n: [row[n] for row in rows] for n in names}, return_tensors="pt"))


@dataclass(frozen=True)
class Judge:
    """Scores models on a task's evaluation split, and compares their answers there with the original's.

    Attributes:
        reading: What the original reads.
        again: What smaller models read, whose tokenizer may have fewer words.
        before: The original's score.
    """

    task: Task
    original: PreTrainedModel
    reading: Reading
    again: Reading
    before: Score

    @classmethod
    def of(cls, task: Task, original: PreTrainedModel, reading: Reading) -> tuple["Judge", Answers | None]:
        """Scores the original; also returns what its answers are worth beside a blind one."""
        score, answers = main_score(task, reading.split, reading.predictions(original))
        return cls(task, original, reading, reading, score), answers

    def score(self, model: PreTrainedModel) -> tuple[Score, Difference, Answers | None]:
        """Scores a model; the difference is to the original, in points."""
        score, answers = main_score(self.task, self.again.split, self.again.predictions(model))
        return score, difference(score, self.before), answers

    @property
    def numbers(self) -> bool:
        """Returns whether answers are numbers, of which no two are quite the same."""
        return self.task.head.kind == "regression"

    def agreement(self, model: PreTrainedModel, progress: Progress) -> float:
        """Returns the share of rows that both answer alike; of numbers, Pearson's correlation, 0 where all are one."""
        split = self.reading.split
        order = split.order or range(len(split))
        total = -(-len(order) // 32)
        mine = progress.each("comparing answers with the original's", self.reading.batches(order), total)
        others = self.again.batches(order)
        if not self.numbers:
            return compare_answers(self.original, model, mine, others=others).share
        pairs = [
            [_numbers(*each) for each in ((self.original, one), (model, other))]
            for one, other in zip(mine, others, strict=True)
        ]
        found = torch.corrcoef(torch.cat([torch.stack(pair) for pair in pairs], 1))[0, 1]
        return float(found.nan_to_num())


def _numbers(model: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
    with evaluating(model) as device:
        logits: Tensor = model(**{name: rows.to(device) for name, rows in batch.items()}).logits
    return logits.flatten().double().cpu()
