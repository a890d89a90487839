"""Traces a forward pass as a graph with free batch and length, for all formats that hold one."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export

from trainflat.core.errors import InputError, one_line
from trainflat.export.base import Source
from trainflat.models import max_positions, vocabulary_size

_ROWS, _TOKENS = 4, 16  # of the example: other sizes than any that a model might treat in a way of their own
_MOST_ROWS = 1024
_NO_LIMIT = 4096  # tokens, where a model has no end of positions


class Logits(nn.Module):
    """Wraps a model so that tensors go in and tensors come out."""

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.model, self.outputs = source.model, source.outputs
        self.eval()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        more = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        found = self.model(input_ids=input_ids, attention_mask=attention_mask, **more)
        return tuple(found[name] for name in self.outputs)


def example(source: Source) -> dict[str, Tensor]:
    """Makes a batch with padding in it: without, a graph may be traced that ignores the mask."""
    batch = {name: torch.zeros(_ROWS, _TOKENS, dtype=torch.long) for name in source.inputs}
    vocabulary = min(vocabulary_size(source.model), len(source.tokenizer))
    batch["input_ids"] += torch.arange(_ROWS * _TOKENS).reshape(_ROWS, _TOKENS) % vocabulary
    batch["attention_mask"][:, :] = 1
    batch["attention_mask"][1:, _TOKENS // 2 :] = 0
    return batch


def dynamic_shapes(source: Source) -> dict[str, Any]:
    """Frees batch and length of every input, up to what the model has positions for."""
    rows = Dim("batch", min=1, max=_MOST_ROWS)
    tokens = Dim("sequence", min=2, max=max_positions(source.model) or _NO_LIMIT)
    return {name: {0: rows, 1: tokens} for name in source.inputs}


def export_program(source: Source) -> ExportedProgram:
    """Exports a forward pass by torch; to be called inside :func:`traceable`."""
    return export(Logits(source), (), example(source), dynamic_shapes=dynamic_shapes(source), strict=False)


@contextmanager
def traceable(source: Source, form: str) -> Iterator[None]:
    """Switches attention to plain matrix products, which export as fewer nodes; makes failures one line.

    Raises:
        InputError: the model cannot be traced.
    """
    model = source.model
    before = getattr(model.config, "_attn_implementation", None)
    try:
        model.set_attn_implementation("eager")
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the exporter's own code, which users cannot change
            yield
    except InputError:
        raise
    except Exception as error:  # exporters raise errors of many kinds
        raise InputError(f"{type(model).__name__} cannot be exported to {form}: {one_line(error, 200)}") from error
    finally:
        if before is not None:  # not known: eager attention stays
            model.set_attn_implementation(before)
