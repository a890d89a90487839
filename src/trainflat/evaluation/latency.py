"""Times forward passes."""

from collections.abc import Callable
from time import perf_counter

import torch
from transformers import PreTrainedModel

from trainflat.core.errors import InputError
from trainflat.core.formatting import plural
from trainflat.core.timing import spread
from trainflat.evaluation.modes import evaluating
from trainflat.models import max_positions, vocabulary_size
from trainflat.records.run import Latency


def measure_latency(model: PreTrainedModel, batch: int, length: int, *, repeats: int = 20, warmup: int = 3) -> Latency:
    """Times one forward pass without padding: median and quartiles over ``repeats``.

    The token ids are random, the same in every call; the caller's random state and the model's mode are left alone.

    Args:
        model: On the device where it shall be timed.
        batch: Rows.
        length: Tokens per row.
        repeats: Passes that are timed.
        warmup: Passes before them.

    Raises:
        InputError: a size is not positive, or the model has no positions for ``length`` tokens.
    """
    _check_sizes(model, batch, length, repeats)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(vocabulary_size(model), (batch, length), generator=generator)
    with evaluating(model) as device:
        inputs = {"input_ids": ids.to(device), "attention_mask": torch.ones_like(ids, device=device)}
        seconds = _time(lambda: model(**inputs), repeats, warmup, device)
    middle = spread(seconds)
    return Latency(
        batch=batch,
        length=length,
        threads=torch.get_num_threads(),
        device=str(device),
        median=middle.value,
        low=middle.low,
        high=middle.high,
        repeats=repeats,
    )


def _check_sizes(model: PreTrainedModel, batch: int, length: int, repeats: int) -> None:
    for name, value in {"batch": batch, "length": length, "repeats": repeats}.items():
        if value < 1:
            raise InputError(f"latency is measured for a {name} of at least 1, got {value}.")
    positions = max_positions(model)
    if positions is not None and length > positions:
        raise InputError(
            f"latency cannot be measured at length {length}: the model has positions for {plural(positions, 'token')}."
        )


def _time(run: Callable[[], object], repeats: int, warmup: int, device: torch.device) -> list[float]:
    seconds = []
    for _ in range(warmup + repeats):
        start = perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # kernels are only queued when the call returns
        seconds.append(perf_counter() - start)
    return seconds[warmup:]
