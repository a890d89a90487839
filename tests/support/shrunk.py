"""Folders of models that are shrunk unevenly, with a tokenizer."""

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from tests.support.families import FAMILIES, config, write
from trainflat.anatomy import anatomy_of
from trainflat.pruning.structured import Kept, shrink

IDS = [[1, 5, 7, 3, 2], [1, 9, 4, 2, 2]]


def dense(family: str = "Bert", head: str = "ForSequenceClassification", **options: Any) -> Any:
    """A tiny random float32 model of three layers."""
    torch.manual_seed(0)
    return getattr(transformers, f"{family}{head}")(config(family, initializer_range=0.3, **options)).eval()


def ragged(family: str = "Bert", head: str = "ForSequenceClassification", **options: Any) -> Any:
    """A tiny float32 model of three layers: one whole but narrower, one with biases only, one half skipped."""
    model = dense(family, head, **options)
    anatomy = anatomy_of(model)
    gone = [one for one in anatomy.units("feed-forward unit") if one.layer is None or one.index > one.layer + 6]
    gone += anatomy.units("hidden dimension")[:1]
    gone += [one for one in anatomy.units("head") if one.layer in (None, 1) and (one.layer or one.index == 0)]
    gone += [one for one in anatomy.units("feed-forward unit") if one.layer == 1]
    gone += [one for one in anatomy.units("attention sub-layer") if one.layer == 2]
    if family == "Albert":
        gone = [one for one in gone if one.kind != "feed-forward unit" or one.index > 6]
    return shrink(model, Kept.all(anatomy).without(gone))


def folder_of(place: Path, family: str = "Bert", **options: Any) -> Path:
    return write(place, ragged(family, **options))


@torch.no_grad()
def answers(model: Any) -> Tensor:
    logits: Tensor = model(input_ids=torch.tensor(IDS)).logits
    return logits


ALL = tuple(FAMILIES)
