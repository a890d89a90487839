"""Samples batches of rows of similar length, in an order that depends on the seed and the epoch alone."""

from collections.abc import Iterator, Mapping, Sequence, Sized
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Sampler

if TYPE_CHECKING:
    from trainflat.training.arguments import FlatArguments

# As transformers: large enough that a batch holds one length, small enough that batches differ from epoch to epoch.
_BATCHES_SORTED_TOGETHER = 50


class LengthGroupedSampler(Sampler[int]):
    """Yields row numbers so that consecutive ``batch_size`` rows are of about one length.

    Each epoch is shuffled, cut into blocks of 50 batches, each block sorted by length, and the batches of all blocks
    shuffled; an incomplete batch comes last. Transformers' own sampler draws from a generator that a resumed run does
    not restore; this one is seeded anew by ``(seed, epoch)``, so a resumed epoch is the same epoch.

    Args:
        lengths: Tokens per row.
        batch_size: Rows behind one optimizer step (all micro-batches and processes together), so that cutting a batch
            into micro-batches changes no step.
        seed: Of the order.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int = 0) -> None:
        self.lengths = torch.as_tensor(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        return iter(self.order(self.epoch))

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch of the next iteration."""
        self.epoch = epoch

    def order(self, epoch: int) -> list[int]:
        """All row numbers in the order of one epoch."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63)
        shuffled = torch.randperm(len(self), generator=generator)
        blocks = torch.split(shuffled, self.batch_size * _BATCHES_SORTED_TOGETHER)
        grouped = torch.cat([b[self.lengths[b].argsort(descending=True, stable=True)] for b in blocks])
        whole = len(self) // self.batch_size * self.batch_size
        batches = grouped[:whole].view(-1, self.batch_size)
        mixed = batches[torch.randperm(len(batches), generator=generator)].flatten()
        return [*mixed.tolist(), *grouped[whole:].tolist()]


class ShuffledSampler(LengthGroupedSampler):
    """Yields row numbers in an order shuffled by ``(seed, epoch)``, without regard to length."""

    def order(self, epoch: int) -> list[int]:
        """All row numbers in the order of one epoch."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63)
        order: list[int] = torch.randperm(len(self), generator=generator).tolist()
        return order


def own_sampler(dataset: Any, args: "FlatArguments", micro_batch: int) -> LengthGroupedSampler | None:
    """Returns the sampler of the training rows; None to use the Trainer's, where lengths are unknown or it was chosen.

    Args:
        dataset: The training set.
        args: Of the Trainer: whether and how rows are grouped, the seed, how a step's rows are cut.
        micro_batch: Rows in each part of a step on each process.
    """
    strategy = args.train_sampling_strategy
    asked = strategy == "group_by_length"
    lengths = lengths_of(dataset, args.length_column_name if asked else None) if asked or strategy == "random" else None
    if lengths is None:
        return None
    kind = LengthGroupedSampler if args.length_grouped or asked else ShuffledSampler
    seed = args.data_seed if args.data_seed is not None else args.seed
    return kind(lengths, micro_batch * args.gradient_accumulation_steps * args.world_size, seed)


def lengths_of(dataset: Any, column: str | None = None) -> Sequence[int] | None:
    """Returns the tokens per row, from a column of lengths or the token ids; None where the data set has neither."""
    known: Sequence[int] | None = getattr(dataset, "lengths", None)
    if known is not None or not isinstance(dataset, Sized) or not hasattr(dataset, "__getitem__") or not len(dataset):
        return known
    first = dataset[0]
    if not isinstance(first, Mapping) or "input_ids" not in first:
        return None
    if _has_columns(dataset):
        columns: Any = dataset
        return list(columns[column]) if column in columns.column_names else _column_lengths(columns)
    return [len(dataset[i]["input_ids"]) for i in range(len(dataset))]


def _has_columns(dataset: Any) -> bool:
    """Returns whether rows of a ``datasets`` data set are its columns as stored, not transformed on access."""
    return hasattr(dataset, "with_format") and dataset.format["type"] != "custom"


def _column_lengths(dataset: Any) -> list[int]:
    from pyarrow import compute

    # Row by row, every row would be decoded with all its columns.
    column = dataset.select_columns("input_ids").with_format("arrow")[:]["input_ids"]
    lengths: list[int] = compute.list_value_length(column).to_pylist()
    return lengths
