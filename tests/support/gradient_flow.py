"""A quadratic and a transformer on which scores of the gradient flow are known."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForQuestionAnswering

from tests.conftest import tiny_bert
from tests.support.objectives import BERT, sentences
from trainflat.anatomy.params import prunable
from trainflat.objective import Objective


class Bowl(nn.Module):
    """L = (θ - c)ᵀ A (θ - c) / 2 over two linear layers and a bias, float64."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.one, self.two = nn.Linear(3, 2).double(), nn.Linear(2, 2, bias=False).double()
        self.size = sum(p.numel() for p in self.parameters())
        root = torch.randn(self.size, self.size, dtype=torch.float64, generator=generator)
        self.a, self.c = root @ root.T, torch.randn(self.size, dtype=torch.float64, generator=generator)

    def theta(self) -> Tensor:
        return torch.cat([p.reshape(-1) for p in self.parameters()])

    def objective(self, *sizes: int) -> Objective:
        factors = torch.linspace(0.5, 1.5, sum(sizes), dtype=torch.float64)  # mean 1: only the weighted mean is L

        def loss(model: Any, batch: Any) -> Tensor:
            off = model.theta() - self.c
            return batch["factor"].mean() * (off @ self.a @ off) / 2

        return Objective(self, [{"factor": f} for f in factors.split(sizes)], loss=loss)

    def as_weights(self, flat: Tensor) -> dict[str, Tensor]:
        pieces = flat.split([p.numel() for p in self.parameters()])
        named = {n: piece.view_as(p) for (n, p), piece in zip(self.named_parameters(), pieces, strict=True)}
        return {name: named[name] for name in prunable(self)}


def transformer(kind: str, attention: str = "sdpa") -> tuple[Any, dict[str, Tensor]]:
    torch.manual_seed(0)
    rows = sentences(5)
    if kind == "spans":
        options = {**BERT, "num_attention_heads": 2, "attn_implementation": attention}
        model: Any = BertForQuestionAnswering(BertConfig(**options)).double()
        ends = {"start_positions": torch.tensor([0, 1, 2, 3, 9]), "end_positions": torch.tensor([1, 3, 3, 4, 2])}
        rows = {key: value for key, value in rows.items() if key != "labels"} | ends
    else:
        model = tiny_bert(num_labels=1 if kind == "numbers" else 3, attn_implementation=attention, **BERT).double()
        if kind == "numbers":
            rows["labels"] = torch.linspace(-1, 1, 5, dtype=torch.float64)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p), alpha=0.1)
    return model.train(), rows
