"""Times models side by side, on the same tokens, in turn."""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from trainflat.commands.bench.remote import Away, Remote, Rows
from trainflat.commands.bench.scores import Scored, read_task
from trainflat.commands.bench.variants import Exports, Opened, check_backends, open_all
from trainflat.core.errors import InputError
from trainflat.core.files import workplace
from trainflat.core.formatting import plural
from trainflat.core.progress import Progress
from trainflat.core.timing import REPEATS, Clock, Sample, alternate, median_interval, seconds, spread
from trainflat.records import run as record
from trainflat.records.comparison import Cell, Comparison, Speedup, Timing, Variant

_PATIENCE = 5.0  # seconds that retaking noisy samples may add to one cell
_VOCABULARY = 1000  # where no config tells how many words there are
_PACKAGES = ("onnxruntime", "openvino", "nncf")


def compare(
    models: Sequence[Path],
    *,
    backends: Sequence[str] = ("torch",),
    batches: Sequence[int] = (1,),
    lengths: Sequence[int] = (128,),
    threads: Sequence[int] = (1,),
    rounds: int = REPEATS,
    task: Mapping[str, Any] | None = None,
    data: Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Comparison:
    """Times every model by every backend that runs it, on the CPU.

    All get the same tokens, without padding, and the same number of threads. In each cell (batch, length, threads)
    they take turns, round by round, each round beginning with another; each is called once before. Speed-ups are
    ratios of one round's times to those of the first model by the first backend.

    Args:
        models: Folders that `trainflat.load` reads, folders of exports, or files: .onnx, .xml, .pt2.
        backends: torch, or export formats; a folder is exported to a temporary place first, and checked there.
        batches: Rows.
        lengths: Tokens per row.
        threads: Of every backend.
        rounds: Times that each takes its turn. With fewer than 6 no speed-up is significant.
        task: Its section in a recipe; all are scored on it.
        data: Folder with the task's files.
        seed: That of the run, where it held out rows: the same ones are scored.
        progress: Shows what happens.

    Raises:
        InputError: a model, a backend or a size cannot be used.
    """
    progress = progress or Progress()
    _check_sizes({"--batch": batches, "--length": lengths, "--threads": threads, "--rounds": [rounds]})
    check_backends(backends)
    learned = None if task is None else read_task(task, models[0], data, seed)
    for note in learned.task.notes if learned else ():
        progress.say(f"note: {note}")
    with workplace(Path(tempfile.gettempdir())) as place:  # one that a killed call left is deleted by the next
        place.chmod(0o700)  # the folder above it is everybody's
        variants = open_all(models, backends, Exports(place, task, data, seed, progress))
        _check_lengths(variants, max(lengths))
        scores = _scores(variants, learned, progress)
        timer = _Timer(variants, rounds, progress)
        cells = timer.cells(threads, list(product(batches, lengths)))
    about = {} if learned is None else learned.about()
    return Comparison(variants=timer.measured(scores), cells=cells, rounds=rounds, environment=_environment(), **about)


def tokens(batch: int, length: int, vocabulary: int) -> Rows:
    """Makes the batch to time: ``input_ids`` [batch, length], the same in every call, and a mask of ones."""
    ids = np.random.default_rng(0).integers(0, vocabulary, (batch, length))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def timing(samples: Sequence[Sample], reference: Sequence[Sample] | None) -> Timing:
    """Summarises the rounds of one variant; ``reference`` has the same rounds of the first."""
    middle = spread(seconds(samples))
    return Timing(
        median=middle.value,
        low=middle.low,
        high=middle.high,
        samples=seconds(samples),
        noisy=sum(sample.noisy for sample in samples),
        speedup=None if reference is None else speedup(seconds(reference), seconds(samples)),
    )


def speedup(reference: Sequence[float], mine: Sequence[float]) -> Speedup:
    """Computes the speed-up from the seconds of each round; no value where the interval holds 1."""
    ratios = [a / b for a, b in zip(reference, mine, strict=True)]
    low, high = median_interval(ratios)
    told = low > 1 or high < 1
    bounded = low > 0  # else there were too few rounds
    return Speedup(
        low=low if bounded else None, high=high if bounded else None, value=spread(ratios).value if told else None
    )


class _Timer:
    """Times all variants, each in its own process."""

    def __init__(self, variants: Sequence[Opened], rounds: int, progress: Progress) -> None:
        self.variants, self.rounds, self.progress = variants, rounds, progress
        self.vocabulary = min(one.number("vocab_size") or _VOCABULARY for one in variants)
        self.bytes = [one.bytes for one in variants]
        self.peaks: list[int | None] = []

    def cells(self, threads: Sequence[int], sizes: Sequence[tuple[int, int]]) -> list[Cell]:
        with ExitStack() as stack:
            remotes = [stack.enter_context(one.start()) for one in self.variants]
            self.progress.begin("timing", len(threads) * len(sizes) * self.rounds)
            found = list(self._in_turn(remotes, threads, sizes))
            self.progress.end()
            self.peaks = [remote.peak_bytes() for remote in remotes]
        return found

    def measured(self, scores: Sequence[Mapping[str, Any]]) -> list[Variant]:
        """Returns the size, memory and score of each variant."""
        return [
            Variant(model=one.model, backend=one.backend, bytes=size, peak_bytes=peak, **scored)
            for one, size, peak, scored in zip(self.variants, self.bytes, self.peaks, scores, strict=True)
        ]

    def _in_turn(
        self, remotes: Sequence[Remote], threads: Sequence[int], sizes: Sequence[tuple[int, int]]
    ) -> Iterator[Cell]:
        clock, done = Clock([remote.process.pid for remote in remotes]), 0
        for count in threads:
            for remote in remotes:
                remote.open(count)
                remote.hold(tokens(1, max(length for _, length in sizes), self.vocabulary))
                remote.time(1)  # whoever cannot take the longest row says so before others have worked for minutes
            for batch, length in sizes:
                rows = tokens(batch, length, self.vocabulary)
                for remote in remotes:
                    remote.hold(rows)
                yield self._cell(remotes, clock, Cell(batch=batch, length=length, threads=count, timings=[]), done)
                done += self.rounds

    def _cell(self, remotes: Sequence[Remote], clock: Clock, cell: Cell, done: int) -> Cell:
        candidates = {str(n): Away(remote) for n, remote in enumerate(remotes)}
        say = self._counter(cell, done)
        taken = list(alternate(candidates, self.rounds, clock, say, patience=_PATIENCE).values())
        timings = [timing(samples, taken[0] if n else None) for n, samples in enumerate(taken)]
        return cell.model_copy(update={"timings": timings})

    def _counter(self, cell: Cell, done: int) -> Callable[[str], object]:
        rounds = iter(range(done + 1, done + self.rounds + 1))
        return lambda _: self.progress.advance(next(rounds), cell.name)


def _scores(variants: Sequence[Opened], learned: Scored | None, progress: Progress) -> list[dict[str, Any]]:
    """Scores all variants, in processes of their own, so that the peaks of those that are timed are theirs."""
    if learned is None:
        return [{}] * len(variants)
    progress.begin(f"scoring on {learned.task.name}", len(variants))
    scores: list[dict[str, Any]] = []
    for done, one in enumerate(variants, 1):
        with one.start() as remote:
            remote.open(_cores())
            scores.append(learned.score(one, remote))
        progress.advance(done, f"{one.name}: {scores[-1]['score']:z.2f}")
    progress.end()
    return scores


def _check_sizes(sizes: Mapping[str, Sequence[int]]) -> None:
    for name, values in sizes.items():
        for value in values:
            if value < 1:
                raise InputError(f"{name} takes numbers of at least 1, got {value}.")
            if name == "--threads" and value > _cores():
                raise InputError(
                    f"--threads {value}: this machine has {plural(_cores(), 'core')}. More would wait for each other."
                )


def _check_lengths(variants: Sequence[Opened], longest: int) -> None:
    for one in variants:
        positions = one.number("max_position_embeddings") or longest
        if longest > positions:
            raise InputError(
                f"--length {longest}: {one.model} has positions for {plural(positions, 'token')}. Choose fewer."
            )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _environment() -> dict[str, Any]:
    packages = {name: record.package_version(name) for name in _PACKAGES}
    policy = os.environ.get("OMP_WAIT_POLICY", "not set")
    return record.environment({"cores": _cores(), "processor": record.processor(), "wait_policy": policy, **packages})
