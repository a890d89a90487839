"""From the folder of a fine-tuned model to the folder of a smaller one, measured beside it."""

import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import torch
from transformers import PreTrainedModel

from trainflat.commands.compress.attempts import Search, by_count, refusal
from trainflat.commands.compress.card import model_card
from trainflat.commands.compress.goal import read_goal
from trainflat.commands.compress.pair import Judge, Reading, Shape, compare_speed, using_threads
from trainflat.commands.export import as_named, row_length, task_for
from trainflat.core.errors import InputError, UnknownName
from trainflat.core.files import remove, write_text
from trainflat.core.formatting import plural
from trainflat.core.progress import Progress
from trainflat.export import new_folder
from trainflat.models import Encoder, load_encoder, max_positions, meet, no_bars, vocabulary_size
from trainflat.models.vocabulary import trim_vocabulary
from trainflat.protocols import Planned, Produced, Workspace
from trainflat.protocols.post_training import LATENCIES, Shrinking
from trainflat.protocols.structured import retraining
from trainflat.protocols.workspace import train
from trainflat.pruning.structured import check_reach
from trainflat.pruning.structured.budgets import Budget, Latency
from trainflat.pruning.structured.latency import LatencyTable, latency_table
from trainflat.pruning.structured.repairs import REPAIRS
from trainflat.pruning.structured.unit_scores import UNIT_SCORES
from trainflat.pruning.structured.widths import Shape as Widths
from trainflat.records import run as record
from trainflat.records.compression import COMPRESSION, COMPRESSION_FILE, Compression, Goal, Side
from trainflat.tasks.base import EncodedSplit, Task
from trainflat.training.options import TrainingOptions

_FLOOR = 0.8
_WORK = ".work"  # of the training again, inside the folder that is not there yet
_CHOSEN = "The size was chosen on the rows that it is scored on; on others it may lose a little more."


def compress(
    model: str | Path,
    task: str | Mapping[str, Any],
    *,
    out: str | Path,
    speedup: float | str | None = None,
    latency: float | str | None = None,
    size: float | str | None = None,
    sparsity: float | str | None = None,
    max_drop: float | str | None = None,
    retrain: float = 0,
    trim: bool = False,
    floor: float = _FLOOR,
    pruner: str | Mapping[str, Any] = "obs",
    repair: str | Mapping[str, Any] = "least-squares",
    shape: str = "friendly",
    rows: int = 512,
    batch: int = 1,
    length: int = 128,
    threads: int | None = None,
    data: Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Compression:
    """Makes a fine-tuned model physically smaller; the folder appears only if it answers as the model does.

    Args:
        model: Folder or hub name of a fine-tuned model.
        task: Its name, or as in a recipe: its training rows are read without labels, its evaluation rows scored.
        out: The new folder.
        speedup: Times as fast on this machine as the model; or one of the others:
        latency: Milliseconds of one forward pass.
        size: Megabytes of the weights as float32.
        sparsity: Share of the layers' parameters to remove.
        max_drop: Points that the score may lose; the smallest model that keeps to it.
        retrain: Epochs of distillation from the original.
        trim: Whether the words that the training rows do not use go from tokenizer and model.
        floor: Share of the evaluation rows that both must answer alike, or the correlation of their numbers; 0 writes
            whatever comes out.
        pruner: Score of units, of ``UNIT_SCORES``.
        repair: Of ``REPAIRS``.
        shape: ``"friendly"`` keeps units in multiples of 32, ``"ragged"`` any number.
        rows: Training rows that are looked at.
        batch: Rows that are timed.
        length: Tokens per row that are timed.
        threads: Of torch, for timing; as many as it has by default.
        data: Folder with the task's files.
        seed: Draws the rows; where the model's run held out rows, its seed scores the same ones.
        progress: Is told what happens.

    Returns:
        The record, which is also in the folder as ``compression.json``.

    Raises:
        InputError: something given cannot be used, the goal is out of reach, or the answers differ too much.
    """
    started, shown = time.monotonic(), progress or Progress()
    goal = read_goal(speedup=speedup, latency=latency, size=size, sparsity=sparsity, max_drop=max_drop)
    _check_numbers(retrain, floor)
    shrinking = Shrinking(UNIT_SCORES.read(pruner), REPAIRS.read(repair), _widths(shape), rows)
    timed = Shape(batch, length, threads or torch.get_num_threads())
    with new_folder(Path(out)) as place:
        learned = as_named(task_for(model, task, data, seed), Path(model))
        asked = _Asked(goal, timed, seed, retrain, trim)
        job = _Job.read(str(model), learned, place, asked, shown)
        found, small = job.carry_out(shrinking, floor)
        found = found.model_copy(update={"seconds": time.monotonic() - started, "peak_bytes": _peak()})
        _write(found, small, job, place, Path(out).name)
    return found


def _widths(shape: str) -> Widths:
    found = next((one for one in get_args(Widths) if one == shape), None)
    if found is None:
        raise UnknownName("--shape", shape, get_args(Widths))
    return found  # type: ignore[no-any-return]  # one of the Literal's words


def _check_numbers(retrain: float, floor: float) -> None:
    if not 0 <= retrain <= 1000:
        raise InputError(f"--retrain is a number of epochs, at least 0, got {retrain:g}.")
    if not 0 <= floor <= 1:
        raise InputError(f"--floor is a share of rows in [0, 1], got {floor:g}. 0 switches it off.")


@dataclass(frozen=True)
class _Asked:
    """Holds what was asked for, besides how to prune."""

    goal: Goal
    timed: Shape
    seed: int
    retrain: float
    trim: bool


@dataclass(frozen=True)
class _Job:
    """Holds the original with its score, and in the workspace what is pruned, which may have fewer words."""

    name: str
    place: Path
    workspace: Workspace
    judge: Judge
    asked: _Asked
    notes: tuple[str, ...]

    @classmethod
    def read(cls, name: str, task: Task, place: Path, asked: _Asked, progress: Progress) -> "_Job":
        """Loads model and rows, and scores the model."""
        encoder = load_encoder(name, task.head, fine_tuned=True)
        asked.timed.check(encoder.model)
        encoder.model.eval()
        notes = (*task.notes, *([encoder.note] if encoder.note else []))
        for note in notes:
            progress.say(f"note: {note}")
        length = row_length(task, max_positions(encoder.model))
        # The last weights: which of them are best would be chosen on the rows that are scored.
        options = TrainingOptions(epochs=asked.retrain or 1, max_length=length, keep="last")
        training, evaluation = task.encode(encoder.tokenizer, options.max_length)
        meet(encoder, training.rows, learns=asked.retrain > 0)
        original, reading = encoder.model, Reading(evaluation[task.split], encoder.tokenizer)
        if asked.trim:
            encoder, said = _trimmed(encoder, task, training)
            training, evaluation = task.encode(encoder.tokenizer, options.max_length)
            notes = (*notes, said)
        _check_reach(encoder.model, asked)
        progress.say(f"scoring {name} on {plural(len(reading.split), 'row')} of {task.split}")
        judge, answers = Judge.of(task, original, reading)
        judge = replace(judge, again=Reading(evaluation[task.split], encoder.tokenizer))
        remark = [f"The original's {task.score_name}: {answers.remark()}"] if answers and answers.remark() else []
        workspace = Workspace(
            encoder, task, training, evaluation, options, place / _WORK, asked.seed, progress=progress
        )
        return cls(name, place, workspace, judge, asked, (*notes, *remark))

    @property
    def model(self) -> PreTrainedModel:
        """Returns the model that is pruned."""
        return self.workspace.encoder.model

    @property
    def task(self) -> Task:
        return self.workspace.task

    def carry_out(self, shrinking: Shrinking, floor: float) -> tuple[Compression, PreTrainedModel]:
        """Prunes, trains again where that was asked for, and measures."""
        workspace, timed = self.workspace, self.asked.timed
        dense = Produced(Planned("dense", 0.0, trained=False), self.model)
        stage = Planned("compressed", 0.0, trained=self.asked.retrain > 0)
        original = self.judge.original
        search = Search(
            make=lambda budget: self._make(shrinking, dense, stage, budget),
            fast=lambda speedup: Latency(self._table(), speedup=speedup),
            drop=lambda made: -self.judge.score(made.model)[1].value,
            length=timed.length,
            progress=workspace.progress,
        )
        made = search.reach(self.asked.goal, compare_speed(original, original, timed, rounds=3).before)
        found = self._measured(shrinking, made)
        if found.agreement < floor:
            raise InputError(
                f"{found.agreed}, below the floor of {floor:g} (score "
                f"{found.after.score:.2f}, the original has {found.before.score:.2f}). Nothing was written. Ask for "
                f"less, add --retrain {2 * self.asked.retrain or 2:g}, or switch the check off with --floor 0."
            )
        return found, made.model

    def _table(self) -> LatencyTable:
        """Measures the times of all widths once; the table stays in the new folder."""
        path, progress = self.place / LATENCIES, self.workspace.progress
        timed = self.asked.timed
        with using_threads(timed.threads):
            return latency_table(path, self.model, timed.batch, timed.length, progress=progress)

    def _make(self, shrinking: Shrinking, dense: Produced, stage: Planned, budget: Budget) -> Produced:
        made = shrinking.smaller(self.workspace, dense, stage, budget)
        if not self.asked.retrain:
            return made
        taught = retraining(self.workspace, dense)
        return replace(train(taught, stage, made.model), structure=made.structure)

    def _measured(self, shrinking: Shrinking, made: Produced) -> Compression:
        small, task, split, timed = made.model, self.task, self.task.split, self.asked.timed
        original, goal = self.judge.original, self.asked.goal
        assert made.structure is not None, "the model was shrunk"
        speed = compare_speed(original, small, timed)
        after, apart, answers = self.judge.score(small)
        alike = self.judge.agreement(small, self.workspace.progress)
        missed = speed.missed(goal)
        notes = [*self.notes, *([_CHOSEN] if goal.kind == "max-drop" else []), *([missed] if missed else [])]
        if answers and answers.remark():
            notes.append(f"{task.score_name}: {answers.remark()}")
        return Compression(
            model=self.name,
            architecture=type(original).__name__,
            goal=goal,
            before=_side(original, speed.before, self.judge.before.value, self.judge.before.rows),
            after=_side(small, speed.after, after.value, after.rows),
            speedup=speed.ratio.value,
            speedup_low=speed.ratio.low,
            speedup_high=speed.ratio.high,
            batch=timed.batch,
            length=timed.length,
            threads=timed.threads,
            agreement=alike,
            numbers=self.judge.numbers,
            margin=(apart.low, apart.high),
            task=task.name,
            split=split,
            metric=task.score_name,
            data={name: task.fingerprints[name] for name in ("train", split) if name in task.fingerprints},
            structure=made.structure.model_copy(update={"dense_vocabulary": vocabulary_size(original)}),
            retrained=self.asked.retrain,
            labels_read=UNIT_SCORES[shrinking.score.name].labelled,
            calibration_rows=min(shrinking.rows, len(self.workspace.train_split)),
            seed=self.workspace.seed,
            seconds=0.0,
            notes=notes,
            environment=record.environment({"threads": timed.threads, "processor": record.processor()}),
        )


def _check_reach(model: PreTrainedModel, asked: _Asked) -> None:
    """Refuses sizes that no pruning reaches before anything is scored; times are known only once they are measured."""
    if (budget := by_count(asked.goal)) is None:
        return
    try:
        check_reach(model, budget)
    except InputError as error:
        hint = (
            " Or add --trim, which drops the words that the training rows do not use."
            if asked.goal.kind == "size" and not asked.trim
            else ""
        )
        raise InputError(f"{refusal(asked.goal, error)}{hint}") from error


def _trimmed(encoder: Encoder, task: Task, training: EncodedSplit) -> tuple[Encoder, str]:
    """Drops the words that no training row uses; returns what is left, and a sentence about it.

    Raises:
        InputError: the task's answers are places in a row, or the tokenizer cannot be trimmed.
    """
    if task.head.kind == "spans":
        raise InputError(
            "--trim: answers are places in a row, which move where a word is read in more pieces. Leave it out."
        )
    used = sorted({one for row in training.rows for one in row["input_ids"]})
    try:
        trimmed = trim_vocabulary(encoder.model, encoder.tokenizer, keep={"ids": used})
    except InputError as error:
        raise InputError(f"--trim: {error}") from error
    report = trimmed.report
    left = f"{report.tokens_after:,} of {report.tokens_before:,}"
    said = f"Words that no training row uses were dropped: {left} are left."
    said += f" {report.losses()}" if report.lost else ""
    return replace(encoder, model=trimmed.model.eval(), tokenizer=trimmed.tokenizer), said


def _side(model: PreTrainedModel, milliseconds: float, score: float, rows: int) -> Side:
    parameters = sum(p.numel() for p in model.parameters())
    return Side(parameters=parameters, bytes=4 * parameters, milliseconds=milliseconds, score=score, rows=rows)


def _peak() -> int | None:
    """Returns the most memory that this process has held, in bytes; only Linux counts it in kilobytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss if sys.platform == "linux" else None


def _write(found: Compression, small: PreTrainedModel, job: _Job, place: Path, name: str) -> None:
    plain = type(small) is type(job.model)
    remove(place / _WORK)
    with no_bars():
        small.save_pretrained(place)
        job.workspace.tokenizer.save_pretrained(place)
    auto = "AutoModelForQuestionAnswering" if job.task.head.kind == "spans" else "AutoModelForSequenceClassification"
    write_text(place / "README.md", model_card(found, name, plain=plain, auto_class=auto))
    COMPRESSION.write(place / COMPRESSION_FILE, found)
