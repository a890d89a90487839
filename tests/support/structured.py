"""Tiny models of every family, and rows to calibrate on, for structured pruning after training."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from tests.support.families import FAMILIES, config

NAMES = (*FAMILIES, "ViT")


def random_model(family: str, seed: int = 0, classes: int = 2, **options: Any) -> Any:
    """A model in float64 with random weights, biases and LayerNorms."""
    torch.manual_seed(seed)
    if family == "ViT":
        sizes = {"hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 12}
        images = transformers.ViTConfig(image_size=8, patch_size=4, num_labels=classes, **sizes, **options)
        model: Any = transformers.ViTForImageClassification(images)
    else:
        kind = getattr(transformers, f"{family}ForSequenceClassification")
        model = kind(config(family, num_labels=classes, **options))
    for p in model.parameters():
        nn.init.normal_(p, std=0.5)
    return model.double().eval()


def rows(family: str, count: int = 6, seed: int = 1, padding: int = 0) -> dict[str, Tensor]:
    """Rows of different lengths with labels; ``padding`` more empty positions at their ends."""
    draws = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (count,), generator=draws)
    if family == "ViT":
        return {"pixel_values": torch.randn(count, 3, 8, 8, generator=draws, dtype=torch.float64), "labels": labels}
    pad = config(family).pad_token_id
    ids = torch.randint(4, 40, (count, 9 + padding), generator=draws)
    ids = torch.cat([torch.randint(4, 40, (count, 9), generator=torch.Generator().manual_seed(seed)), ids[:, 9:]], 1)
    mask = (torch.arange(9 + padding) < torch.arange(count)[:, None] % 4 + 6).long()
    return {"input_ids": ids.where(mask.bool(), pad), "attention_mask": mask, "labels": labels}


@contextmanager
def hearing(model: nn.Module, names: list[str]) -> Iterator[dict[str, list[tuple[Tensor, Any]]]]:
    """What the named modules read and put out, by hooks on the whole model."""
    heard: dict[str, list[tuple[Tensor, Any]]] = {name: [] for name in names}
    handles = []
    for name in names:

        def keep(_: nn.Module, args: Any, output: Any, name: str = name) -> None:
            heard[name].append((args[0].detach(), output))

        handles.append(model.get_submodule(name).register_forward_hook(keep))
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


def questions(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in batch.items() if name != "labels"}
