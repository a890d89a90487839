"""An epoch of CoLA by default, against padding every sentence to 128 tokens and against random batches.

The three plans of an epoch hold the same rows in batches of 32: ``LengthGroupedSampler`` (the default), random batches
padded to their longest row, and random batches padded to 128. A step is forward, backward, fused AdamW and gradients
freed, of MiniLM-L6 with dropout in float32.

Epochs are estimated: a plan's full batches are put in order of their padded tokens, cut into equal shares, and the
middle batch of each share is timed; an epoch is the mean of these steps times the number of batches, the incomplete
last one counted as full. One sample is one such series. The ratio of the padded tokens, which no padding can better, is
given beside it: what a step costs whatever its length (AdamW, dispatch) keeps the times below it, attention and memory
that no longer fits the caches push them above.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet
import torch
from torch import Tensor, nn

from benchmarks.harness import Candidate, Sample, alternate
from benchmarks.result import Result, options
from benchmarks.workload import adamw, backward
from trainflat.core.errors import InputError
from trainflat.models import load_encoder
from trainflat.tasks.base import Head
from trainflat.training.sampler import LengthGroupedSampler

BATCH, FIXED = 32, 128
SHARES = 8  # steps timed per plan; one is enough where all batches are alike
DEFAULT, RANDOM, PADDED = "length-grouped (default)", "random, padded to longest", "padded to 128"
Plan = list[list[int]]


def read_rows(path: Path, tokenizer: Callable[..., dict[str, list[list[int]]]]) -> list[list[int]]:
    """Token ids of every sentence, cut at 128.

    Raises:
        InputError: the file is not there.
    """
    if not path.is_file():
        raise InputError(f"there is no {path}. Name GLUE's CoLA training split with --data train.parquet.")
    sentences = pyarrow.parquet.read_table(path, columns=["sentence"]).column("sentence").to_pylist()
    return tokenizer(sentences, truncation=True, max_length=FIXED)["input_ids"]


def batches(order: Sequence[int]) -> Plan:
    """An order of rows cut into batches."""
    return [list(order[start : start + BATCH]) for start in range(0, len(order), BATCH)]


def sampled(plan: Plan, lengths: Sequence[int], shares: int) -> Plan:
    """The middle batch of each of ``shares`` equal shares of a plan's full batches, in order of their longest row."""
    full = sorted((batch for batch in plan if len(batch) == BATCH), key=lambda batch: max(lengths[i] for i in batch))
    return [full[int(len(full) * (share + 0.5) / shares)] for share in range(shares)]


def padded_tokens(plan: Plan, lengths: Sequence[int]) -> int:
    """Tokens of an epoch, padding counted."""
    return sum(len(batch) * max(lengths[i] for i in batch) for batch in plan)


def collate(rows: Sequence[Sequence[int]], width: int) -> dict[str, Tensor]:
    """Rows padded to ``width`` tokens."""
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
        mask[index, : len(row)] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.arange(len(rows)) % 2}


def series(model: nn.Module, inputs: Sequence[dict[str, Tensor]]) -> Callable[[], None]:
    """Training steps one after another."""
    optimizer = adamw(model)

    def run() -> None:
        for rows in inputs:
            backward(model, rows)
            optimizer.step()
            optimizer.zero_grad()

    return run


def per_epoch(samples: Sequence[Sample], steps_timed: int, steps_of_epoch: int) -> list[Sample]:
    """Times of a series as times of an epoch."""
    return [replace(sample, seconds=sample.seconds / steps_timed * steps_of_epoch) for sample in samples]


def main() -> None:
    """Times the three plans."""
    parser = options(__doc__)
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data/glue/cola/train.parquet"), help="CoLA's training split"
    )
    settings = parser.parse_args()
    torch.set_num_threads(settings.threads)
    result = Result("batching", __doc__, settings)
    encoder = load_encoder("minilm", Head("classification", ("no", "yes")))
    rows = read_rows(settings.data, encoder.tokenizer)
    measure(result, encoder.model.train(), rows)
    result.finish()


def measure(result: Result, model: nn.Module, rows: Sequence[Sequence[int]]) -> None:
    """Fills the result."""
    lengths = [len(row) for row in rows]
    mixed = batches(torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist())
    plans = {DEFAULT: batches(LengthGroupedSampler(lengths, BATCH, 0).order(0)), RANDOM: mixed, PADDED: mixed}
    timed, tokens, candidates = {}, {}, {}
    for name, plan in plans.items():
        fixed = name == PADDED
        chosen = sampled(plan, lengths, 1 if fixed else SHARES)
        widths = [FIXED if fixed else max(lengths[i] for i in batch) for batch in chosen]
        inputs = [collate([rows[i] for i in batch], width) for batch, width in zip(chosen, widths, strict=True)]
        timed[name] = len(chosen)
        tokens[name] = len(rows) * FIXED if fixed else padded_tokens(plan, lengths)
        candidates[name] = Candidate(series(model, inputs))
    taken = alternate(candidates, result.settings.repeats)
    group = f"an epoch of {len(rows)} sentences"
    result.add(group, {name: per_epoch(samples, timed[name], len(plans[name])) for name, samples in taken.items()})
    for name, bound in ((PADDED, 8.0), (RANDOM, 1.4)):
        result.ratio(group, name, DEFAULT, at_least=bound)
        result.figure(f"padded tokens: {name} / {DEFAULT}", tokens[name] / tokens[DEFAULT], "×")


if __name__ == "__main__":
    main()
